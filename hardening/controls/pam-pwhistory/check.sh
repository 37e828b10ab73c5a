set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/pam.d/common-password ] || fail "/etc/pam.d/common-password is missing: nothing to look at"
find usr/lib/*/security usr/lib/security -name pam_pwhistory.so 2>/dev/null | grep -q . || fail "the module pam_pwhistory.so is missing"
lines=$(pam_lines common-password password | grep -nE 'pam_(pwhistory|unix)\.so' || true)
line=$(printf '%s\n' "$lines" | grep 'pam_pwhistory\.so' | head -n 1)
[ -n "$line" ] || fail "/etc/pam.d/common-password does not name pam_pwhistory.so"
case $(printf '%s\n' "$lines" | head -n 1) in
    *pam_pwhistory*) ;;
    *) fail "/etc/pam.d/common-password: pam_unix.so stores the password before pam_pwhistory.so has looked" ;;
esac
case $line in
    *requisite* | *required*) ;;
    *) fail "/etc/pam.d/common-password: pam_pwhistory.so may fail without consequence" ;;
esac
remember=$(printf '%s\n' "$line" | sed -n 's/.*remember=\([0-9]*\).*/\1/p')
[ "${remember:-10}" -ge "$PARAM_REMEMBER" ] || fail "remember is ${remember:-10}, less than $PARAM_REMEMBER"
case $line in *[[:space:]]file=*) fail "hashes of before are kept in another file than /etc/security/opasswd: $line" ;; esac
case $line in *enforce_for_root*) ;; *) fail "enforce_for_root is not set: root may use old passwords" ;; esac
case $(printf '%s\n' "$lines" | grep 'pam_unix\.so') in
    *remember=*) fail "pam_unix.so remembers passwords by itself, in an older and weaker way" ;;
    *use_authtok*) ;;
    *) fail "pam_unix.so asks for another password than the one looked at" ;;
esac
echo "the last ${remember:-10} passwords are refused, for root too"
