set -eu
cd "$ROOT"
[ -f etc/shells ] && [ ! -L etc/shells ] || exit 0
! grep -qE '/(nologin|false|true)$' etc/shells || sed -i -E '/\/(nologin|false|true)$/d' etc/shells
