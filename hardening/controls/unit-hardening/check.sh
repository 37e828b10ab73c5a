# systemd's own measure: of the unit files with all drop-ins, or of what systemd runs.
set -eu
[ -n "$PARAM_SERVICES" ] || { echo "no services are named: nothing to look at"; exit 1; }
seen=$(
    printf '%s\n' "$PARAM_SERVICES" | while read -r unit most; do
        if [ "$LIVE" = 1 ]; then
            answer=$(SYSTEMD_COLORS=0 systemd-analyze security --no-pager "$unit" 2>&1) || true
        else
            answer=$(SYSTEMD_COLORS=0 systemd-analyze security --offline=yes --root="$ROOT" --no-pager "$unit" 2>&1) || true
        fi
        printf '%s\n' "$answer" | awk -v unit="$unit" -v most="$most" '
            /Overall exposure level for/ { sub(/.*: /, ""); found = 1; print ($1 <= most + 0 ? "good " : "bad ") unit " is exposed by " $1 ", at most " most " is allowed" }
            { last = $0 }
            END { if (!found) print "bad", unit " cannot be measured: " last }'
    done
)
bad=$(printf '%s\n' "$seen" | sed -n 's/^bad //p')
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
printf '%s\n' "$seen" | sed 's/^good //'
