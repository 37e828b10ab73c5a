# systemd's own measure: of the unit files with all drop-ins, or of what systemd runs.
set -eu
[ -n "$PARAM_SERVICES" ] || { echo "no services are named: nothing to look at"; exit 1; }
units=$(printf '%s\n' "$PARAM_SERVICES" | sed 's/ .*//')
if [ "$LIVE" = 1 ]; then
    answer=$(SYSTEMD_COLORS=0 systemd-analyze security --no-pager $units 2>&1) || true
else
    answer=$(SYSTEMD_COLORS=0 systemd-analyze security --offline=yes --root="$ROOT" --no-pager $units 2>&1) || true
fi
seen=$(printf '%s\n' "$answer" | SERVICES=$PARAM_SERVICES awk '
    sub(/.*Overall exposure level for /, "") { exposed[substr($1, 1, length($1) - 1)] = $2 }
    END {
        total = split(ENVIRON["SERVICES"], lines, "\n")
        for (i = 1; i <= total; i++) {
            split(lines[i], word, " ")
            if (!(word[1] in exposed)) print "bad", word[1] " cannot be measured"
            else print (exposed[word[1]] + 0 <= word[2] + 0 ? "good" : "bad"), word[1] " is exposed by " exposed[word[1]] ", at most " word[2] " is allowed"
        }
    }')
bad=$(printf '%s\n' "$seen" | sed -n 's/^bad //p')
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
printf '%s\n' "$seen" | sed 's/^good //'
