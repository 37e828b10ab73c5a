set -eu
cd "$ROOT"
if [ -f etc/passwd ] && [ ! -L etc/passwd ]; then
    new=$(awk -F: -v OFS=: -v allow="$PARAM_ALLOW" '
        BEGIN {split(allow, names, "\n"); for (i in names) allowed[names[i]] = 1}
        !allowed[$1] && $7 !~ /^(\/usr)?\/s?bin\/nologin$/ {$7 = "/usr/sbin/nologin"}
        {print}' etc/passwd)
    [ "$new" = "$(cat etc/passwd)" ] || printf '%s\n' "$new" > etc/passwd
fi
if [ -f etc/shadow ] && [ ! -L etc/shadow ] && grep -q '^[^:]*::' etc/shadow; then
    sed -i 's/^\([^:]*\)::/\1:!:/' etc/shadow
fi
