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
has=$(sed -n 's/^[[:space:]]*DIR_MODE[[:space:]]*=[[:space:]]*"\{0,1\}\([0-7]*\).*/\1/p' etc/adduser.conf 2>/dev/null | tail -n 1)
case ${has#0} in '' | 7[0145]0) ;; *) fail "/etc/adduser.conf: DIR_MODE is $has: others look into new homes" ;; esac
for mask in $(masks etc/profile etc/bash.bashrc etc/profile.d/*.sh) \
    $(sed -n 's/^[^#]*[[:space:]]pam_umask\.so.*[[:space:]]umask=\([^][:space:]]*\).*/\1/p' etc/pam.d/* 2>/dev/null || true); do
    [ "${mask#0}" = "$PARAM_UMASK" ] || [ "${mask#0}" = "${PARAM_UMASK#0}" ] || fail "shells or pam_umask.so get umask $mask, not $PARAM_UMASK"
done
echo "umask $PARAM_UMASK, private homes, password hash $PARAM_HASH"
