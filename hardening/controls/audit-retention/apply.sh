set -eu
cd "$ROOT"
file=etc/audit/auditd.conf
[ -f "$file" ] && [ ! -L "$file" ] || exit 0
new=$(SETTINGS=$PARAM_SETTINGS awk '
    BEGIN { n = split(ENVIRON["SETTINGS"], lines, "\n"); for (i = 1; i <= n; i++) { at = index(lines[i], "="); want[substr(lines[i], 1, at - 1)] = substr(lines[i], at + 1) } }
    { key = tolower($1); sub(/=.*/, "", key) }
    key in want { if (!(key in told)) print key " = " want[key]; told[key] = 1; next }
    { print }
    END { for (i = 1; i <= n; i++) { key = lines[i]; sub(/=.*/, "", key); if (!(key in told)) print key " = " want[key] } }
' "$file")
[ "$new" = "$(cat "$file")" ] || printf '%s\n' "$new" > "$file"
find etc/audit -xdev -type f -perm /0137 -exec chmod u-x,g-wx,o-rwx -- {} +
find etc/audit -xdev \( ! -uid 0 -o ! -gid 0 \) -exec chown -h 0:0 -- {} +
[ ! -d var/log/audit ] || [ "$(stat -c %a var/log/audit)" = 750 ] || chmod 0750 var/log/audit
