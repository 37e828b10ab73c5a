set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/pam.d/common-password ] || fail "/etc/pam.d/common-password is missing: nothing to look at"
find usr/lib/*/security usr/lib/security -name pam_pwquality.so 2>/dev/null | grep -q . ||
    fail "the module pam_pwquality.so is missing: add the package libpam-pwquality"
line=$(pam_lines common-password password | grep 'pam_pwquality\.so' | head -n 1)
[ -n "$line" ] || fail "/etc/pam.d/common-password does not name pam_pwquality.so"
case $line in
    *requisite* | *required*) ;;
    *) fail "/etc/pam.d/common-password: pam_pwquality.so may fail without consequence" ;;
esac
for word in ${line#*pam_pwquality.so}; do
    case $word in
        retry=* | authtok_type=* | enforce_for_root | use_authtok | try_first_pass | debug) ;;
        *) fail "/etc/pam.d/common-password: pam_pwquality.so has the argument $word, which overrides pwquality.conf" ;;
    esac
done
case $(pam_lines common-password password | grep 'pam_unix\.so') in
    *use_authtok*) ;;
    *) fail "/etc/pam.d/common-password: pam_unix.so asks for another password than the one looked at" ;;
esac
others=$(pam_all password | grep -F pam_unix.so | grep -v '^/etc/pam\.d/common-password: ' || true)
[ -z "$others" ] || fail "$(printf 'takes a password unchecked:\n%s' "$others")"
for file in etc/security/pwquality.conf etc/security/pwquality.conf.d/*.conf; do
    [ ! -L "$file" ] || fail "/$file is a link"
done
# The main file is read last, so its settings count.
settings=$(cat etc/security/pwquality.conf.d/*.conf etc/security/pwquality.conf 2>/dev/null || true)
setting() { printf '%s\n' "$settings" | sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*\([-0-9]*\).*/\1/p" | tail -n 1; }
for want in "minlen 8 $PARAM_MINIMUM" "difok 1 2" "minclass 0 4" "dictcheck 1 1" "enforcing 1 1"; do
    set -- $want
    has=$(setting "$1")
    [ "${has:-$2}" -ge "$3" ] || fail "$1 is ${has:-$2}, less than $3"
done
for name in maxrepeat maxsequence; do
    has=$(setting $name)
    [ "${has:-0}" -ge 1 ] && [ "${has:-0}" -le 3 ] || fail "$name is ${has:-0}, not from 1 to 3"
done
weaker=$(printf '%s\n' "$settings" | grep -E '^[[:space:]]*([dulo]credit[[:space:]]*=[[:space:]]*\+?0*[1-9]|dictpath[[:space:]]*=[[:space:]]*[^[:space:]])' || true)
[ -z "$weaker" ] || fail "characters that count twice, or another dictionary: $weaker"
printf '%s\n' "$settings" | grep -qx '[[:space:]]*enforce_for_root[[:space:]]*' || fail "enforce_for_root is not set: root may choose anything"
echo "pam_pwquality.so asks for $PARAM_MINIMUM characters of four classes, not in the dictionary, root too"
