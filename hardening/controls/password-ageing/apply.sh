set -eu
cd "$ROOT"
if [ -f etc/login.defs ] && [ ! -L etc/login.defs ]; then
    for line in "PASS_MAX_DAYS $PARAM_MAXIMUM" "PASS_MIN_DAYS $PARAM_MINIMUM" "PASS_WARN_AGE 7"; do
        key=${line% *}
        [ "$(sed -n "s/^[[:space:]]*$key[[:space:]]*//p" etc/login.defs)" != "${line#* }" ] || continue
        sed -i "/^[[:space:]]*$key[[:space:]]/d" etc/login.defs
        append etc/login.defs "$(printf '%s\t%s' "$key" "${line#* }")"
    done
fi
if [ -f etc/default/useradd ] && [ ! -L etc/default/useradd ] &&
    [ "$(sed -n 's/^[[:space:]]*INACTIVE=//p' etc/default/useradd)" != "$PARAM_INACTIVE" ]; then
    sed -i '/^[[:space:]]*INACTIVE=/d' etc/default/useradd
    append etc/default/useradd "INACTIVE=$PARAM_INACTIVE"
fi
