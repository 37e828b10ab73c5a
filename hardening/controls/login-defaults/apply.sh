set -eu
cd "$ROOT"
[ -f etc/login.defs ] && [ ! -L etc/login.defs ] || exit 0
set_to() {
    [ "$(sed -n "s/^[[:space:]]*$1[[:space:]]*//p" etc/login.defs)" != "$2" ] || return 0
    sed -i "/^[#[:space:]]*$1[[:space:]]/d" etc/login.defs
    append etc/login.defs "$(printf '%s\t%s' "$1" "$2")"
}
set_to UMASK "$PARAM_UMASK"
set_to HOME_MODE 0700
set_to ENCRYPT_METHOD "$PARAM_HASH"
