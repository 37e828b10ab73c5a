set -eu
cd "$ROOT"
if [ "$LIVE" = 1 ]; then
    [ -d var/log/audit ] && [ -d etc/audit ] || { echo "there is no /var/log/audit or no /etc/audit: no trail is kept"; exit 1; }
    open=$(find var/log/audit etc/audit -xdev -perm /0027 ! -type l -printf '/%p has mode %m\n')
    [ -s var/log/audit/audit.log ] && [ -z "$open" ] || { echo "${open:-nothing was written to /var/log/audit/audit.log}"; exit 1; }
    echo "the trail is written, and others do not get at it"
    exit 0
fi
file=etc/audit/auditd.conf
[ -f "$file" ] && [ ! -L "$file" ] || { echo "/$file is missing, or a link: nothing to look at"; exit 1; }
[ -n "$PARAM_SETTINGS" ] || { echo "no settings are asked for: nothing to look at"; exit 1; }
bad=$(
    printf '%s\n' "$PARAM_SETTINGS" | while IFS='=' read -r key value; do
        now=$(awk -F= -v key="$key" '{name = tolower($1); gsub(/[ \t]/, "", name); if (name == key) {gsub(/[ \t]/, "", $2); last = $2}} END {print last}' "$file")
        [ "$(printf %s "$now" | tr A-Z a-z)" = "$(printf %s "$value" | tr A-Z a-z)" ] || echo "$key is ${now:-set nowhere} in /$file, not $value"
    done
    group=$(awk -F= '{name = tolower($1); gsub(/[ \t]/, "", name); if (name == "log_group") {gsub(/[ \t]/, "", $2); last = $2}} END {print last}' "$file")
    case $group in '' | root | adm) ;; *) echo "log_group is $group in /$file: it reads the trail" ;; esac
    find etc/audit -xdev -type f -perm /0137 -printf '/%p has mode %m, more open than 0640\n'
    find etc/audit -xdev \( ! -uid 0 -o ! -gid 0 \) -printf '/%p does not belong to root\n'
    [ ! -d var/log/audit ] || find var/log/audit -xdev -perm /0027 -printf '/%p has mode %m: others get at it\n'
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(printf '%s\n' "$PARAM_SETTINGS" | wc -l) settings of auditd hold, and its files are root's"
