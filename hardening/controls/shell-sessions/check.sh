set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
for file in etc/profile etc/bash.bashrc; do
    [ -s "$file" ] && [ ! -L "$file" ] || fail "/$file is missing: nothing to look at"
done
grep -q '/etc/profile\.d' etc/profile || fail "/etc/profile does not read /etc/profile.d"
files=$(find etc/profile etc/bash.bashrc etc/profile.d -xdev -type f \( -name '*.sh' -o -path etc/profile -o -path etc/bash.bashrc \) | sort)
# shellcheck disable=SC2086
times=$(sed -n "s/' TMOUT='//; s/^[^#]*\bTMOUT=[\"']\{0,1\}\([^\"'[:space:];&|)]*\).*/=\1/p" $files)
[ -n "$times" ] || fail "TMOUT is not set: an idle shell stays"
for time in $times; do
    time=${time#=}
    case $time in '' | *[!0-9]*) fail "TMOUT is ${time:-empty}, not from 1 to $PARAM_TIMEOUT" ;; esac
    [ "$time" -ge 1 ] && [ "$time" -le "$PARAM_TIMEOUT" ] || fail "TMOUT is $time, not from 1 to $PARAM_TIMEOUT"
done
# shellcheck disable=SC2086
grep -qhE '^[[:space:]]*(typeset|declare)[[:space:]]+-xr[[:space:]]+TMOUT=|^[[:space:]]*readonly[[:space:]]+TMOUT' $files ||
    fail "TMOUT is not read-only: anybody can switch it off"
grep -qE "^[[:space:]]*umask[[:space:]]+$PARAM_UMASK[[:space:]]*\$" etc/bash.bashrc || fail "/etc/bash.bashrc does not set umask $PARAM_UMASK"
# shellcheck disable=SC2086
for mask in $(masks $files); do
    [ "$mask" = "$PARAM_UMASK" ] || fail "a shell's start-up files set umask $mask, not $PARAM_UMASK"
done
echo "shells end after $time s without input; umask $PARAM_UMASK"
