set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/pam.d/common-auth ] || fail "/etc/pam.d/common-auth is missing: nothing to look at"
[ -s etc/shadow ] && [ ! -L etc/shadow ] || fail "/etc/shadow is missing: nothing to look at"
found=$(grep -nE '^[^#]*[[:space:]]nullok(_secure)?([[:space:]]|$)' etc/pam.d/* /dev/null || true)
[ -z "$found" ] || fail "$(printf 'an empty password lets in:\n%s' "$found")"
grep -q '^auth.*pam_unix\.so' etc/pam.d/common-auth || fail "/etc/pam.d/common-auth does not name pam_unix.so"
! grep -qE '^[^#]*[[:space:]]pam_permit\.so' etc/pam.d/sudo etc/pam.d/su etc/pam.d/sshd etc/pam.d/login /dev/null 2>/dev/null ||
    fail "pam_permit.so lets everybody in: $(grep -lE '^[^#]*pam_permit\.so' etc/pam.d/sudo etc/pam.d/su etc/pam.d/sshd etc/pam.d/login 2>/dev/null)"
empty=$(awk -F: '$2 == "" {print $1}' etc/shadow etc/passwd)
[ -z "$empty" ] || fail "accounts with an empty password: $empty"
echo "no nullok in $(ls etc/pam.d | wc -l) files of /etc/pam.d, no empty password among $(wc -l < etc/shadow) accounts"
