set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
for file in etc/passwd etc/group; do
    [ -f "$file" ] && [ ! -L "$file" ] || fail "/$file is missing"
done
line=$(grep "^$PARAM_NAME:" etc/passwd) || fail "no account $PARAM_NAME in /etc/passwd"
uid=$(printf '%s\n' "$line" | cut -d: -f3)
home=$(printf '%s\n' "$line" | cut -d: -f6)
[ "$uid" = "$PARAM_UID" ] || fail "account $PARAM_NAME has number $uid, not $PARAM_UID"
others=$(cut -d: -f1,3 etc/passwd | grep ":$PARAM_UID\$" | grep -v "^$PARAM_NAME:" || true)
[ -z "$others" ] || fail "number $PARAM_UID is also the account ${others%%:*}"
grep -q "^$PARAM_NAME:[^:]*:$PARAM_UID:" etc/group || fail "no group $PARAM_NAME with number $PARAM_UID in /etc/group"
[ -d ".$home" ] && [ ! -L ".$home" ] || fail "home directory $home is missing"
owner=$(stat -c %u ".$home")
[ "$owner" = "$PARAM_UID" ] || fail "home directory $home belongs to number $owner"
echo "account $PARAM_NAME has number $uid and home $home"
