set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
for file in etc/passwd etc/shadow; do
    [ -f "$file" ] && [ ! -L "$file" ] || fail "/$file is missing: nothing to look at"
done
# Some programs take +0 or 00 for 0: only numbers that are written plainly are another.
roots=$(awk -F: '$3 !~ /^[1-9][0-9]*$/ && $1 != "root" {print $1}' etc/passwd)
[ -z "$roots" ] || fail "accounts with number 0 beside root, or with no plain number: $roots"
[ "$(grep -c '^root:x:' etc/passwd)" = 1 ] || fail "root's password does not stand in /etc/shadow alone"
[ "$(grep -c '^root:' etc/shadow)" = 1 ] || fail "root does not stand once in /etc/shadow"
grep -q '^root:[*!]' etc/shadow || fail "root has a password, or an empty one, in /etc/shadow"
echo "root is locked in /etc/shadow, and is the only account with number 0"
