set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/pam.d/common-auth ] || fail "/etc/pam.d/common-auth is missing: nothing to look at"
[ -s etc/shadow ] && [ ! -L etc/shadow ] || fail "/etc/shadow is missing: nothing to look at"
found=$(pam_all '(auth|account|password|session)' | grep -E '[[:space:]]null(ok(_secure)?|resetok)([[:space:]]|$)' || true)
[ -z "$found" ] || fail "$(printf 'an empty password lets in:\n%s' "$found")"
pam_lines common-auth auth | grep -q 'pam_unix\.so' || fail "/etc/pam.d/common-auth does not name pam_unix.so"
found=$(pam_all auth | sed -nE 's,^/(etc/pam\.d/(su|su-l|sudo|sudo-i|login|sshd)): .*[[:space:]/]pam_permit\.so.*,pam_permit.so lets everybody in: \1,p'
    pam_open "$PARAM_MODULES")
[ -z "$found" ] || fail "$found"
empty=$(awk -F: '$2 == "" {print $1}' etc/shadow etc/passwd)
[ -z "$empty" ] || fail "accounts with an empty password: $empty"
echo "no nullok in $(ls etc/pam.d | wc -l) files of /etc/pam.d, no empty password among $(wc -l < etc/shadow) accounts"
