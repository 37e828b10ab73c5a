set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
for file in etc/passwd etc/shadow etc/pam.d/common-password; do
    [ -s $file ] && [ ! -L $file ] || fail "/$file is missing: nothing to look at"
done
line=$(pam_lines common-password password | grep 'pam_unix\.so' | head -n 1)
printf '%s\n' "$line" | grep -qE '[[:space:]]yescrypt([[:space:]]|$)' || fail "/etc/pam.d/common-password: pam_unix.so is not told to use yescrypt"
! printf '%s\n' "$line" | grep -qE '[[:space:]](md5|bigcrypt|sha256|sha512|blowfish)([[:space:]]|$)' ||
    fail "/etc/pam.d/common-password: pam_unix.so is told to use a weaker hash too"
lines=$(pam_all password | grep -F pam_unix.so || true)
others=$(printf '%s\n' "$lines" | grep -v '[[:space:]]yescrypt' || true)
[ -z "$others" ] || fail "$(printf 'pam_unix.so is not told to use yescrypt:\n%s' "$others")"
# 5 is what pam_unix.so takes by itself.
cost=$(printf '%s\n' "$lines" | awk '
    match($0, /[ \t]rounds=[0-9]+/) { cost = substr($0, RSTART + 8, RLENGTH - 8) } $1 == "YESCRYPT_COST_FACTOR" { cost = $2 }
    cost != "" && cost + 0 < 5 { print cost; exit }' - etc/login.defs)
[ -z "$cost" ] || fail "yescrypt's cost is $cost, less than 5"
outside=$(awk -F: '$2 != "x" {print $1}' etc/passwd)
[ -z "$outside" ] || fail "not in /etc/shadow: the password of $outside"
weak=$(awk -F: '$2 !~ /^[*!]/ && $2 != "" && $2 !~ /^\$(y|gy|7|6)\$/ {print $1}' etc/shadow)
[ -z "$weak" ] || fail "stored as a weak hash: the password of $weak"
echo "pam_unix.so uses yescrypt; $(wc -l < etc/passwd) accounts, their passwords in /etc/shadow alone"
