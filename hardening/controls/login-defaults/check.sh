set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -f etc/login.defs ] && [ ! -L etc/login.defs ] || fail "/etc/login.defs is missing: nothing to look at"
for line in "UMASK $PARAM_UMASK" "HOME_MODE 0700" "ENCRYPT_METHOD $PARAM_HASH"; do
    has=$(awk -v key="${line% *}" '$1 == key {value = $2} END {print value}' etc/login.defs)
    [ "$has" = "${line#* }" ] || fail "/etc/login.defs: ${line% *} is ${has:-not set}, not ${line#* }"
done
has=$(cat etc/profile.d/goldsmith-umask.sh 2>/dev/null || true)
[ "$has" = "umask $PARAM_UMASK" ] || fail "/etc/profile.d/goldsmith-umask.sh does not set umask $PARAM_UMASK"
echo "umask $PARAM_UMASK, private homes, password hash $PARAM_HASH"
