set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/passwd ] && [ ! -L etc/passwd ] || fail "/etc/passwd is missing or empty: nothing to look at"
shells=$(awk -F: -v allow="$PARAM_ALLOW" '
    BEGIN {split(allow, names, "\n"); for (i in names) allowed[names[i]] = 1}
    !allowed[$1] && $7 !~ /^(\/usr)?\/s?bin\/nologin$/ {print $1 " has the shell " ($7 ? $7 : "/bin/sh (the field is empty)")}' etc/passwd)
[ -z "$shells" ] || fail "$shells"
empty=$(awk -F: '$2 == "" {print $1}' etc/passwd)
if [ -f etc/shadow ] && [ ! -L etc/shadow ]; then
    empty=$empty$(awk -F: '$2 == "" {print $1}' etc/shadow)
fi
[ -z "$empty" ] || fail "accounts with an empty password: $empty"
echo "$(wc -l < etc/passwd) accounts: none of them can log in"
