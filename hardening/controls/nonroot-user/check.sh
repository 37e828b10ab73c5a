set -eu
fail() { echo "$*"; exit 1; }
user=${IMAGE_USER%%:*}
[ -n "$user" ] || fail "no default user is set, so the image runs as root"
case $user in
    *[!0-9]*)
        [ -f "$ROOT/etc/passwd" ] && [ ! -L "$ROOT/etc/passwd" ] || fail "user $user: there is no /etc/passwd to find it in"
        uid=$(grep "^$user:" "$ROOT/etc/passwd" | head -n 1 | cut -d: -f3)
        [ -n "$uid" ] || fail "user $user is not in /etc/passwd"
        ;;
    *) uid=$user ;;
esac
[ "$uid" -ne 0 ] || fail "the default user is root (USER $IMAGE_USER)"
echo "default user: $IMAGE_USER (number $uid)"
