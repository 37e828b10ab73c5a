set -eu
cd "$ROOT"
[ -f etc/group ] && [ ! -L etc/group ] && [ -f etc/pam.d/su ] && [ ! -L etc/pam.d/su ] || exit 0
if ! grep -q "^$PARAM_GROUP:" etc/group; then
    gid=999
    while grep -q "^[^:]*:[^:]*:$gid:" etc/group; do gid=$((gid - 1)); done
    append etc/group "$PARAM_GROUP:x:$gid:"
    [ ! -f etc/gshadow ] || [ -L etc/gshadow ] || append etc/gshadow "$PARAM_GROUP:!::"
fi
line="auth required pam_wheel.so use_uid group=$PARAM_GROUP"
[ "$(grep -E '^auth[[:space:]]' etc/pam.d/su | sed -n 2p)" != "$line" ] || exit 0
new=$(awk -v line="$line" '/^auth[ \t].*pam_wheel\.so/ {next} {print} /^auth[ \t].*pam_rootok\.so/ {print line}' etc/pam.d/su && echo .)
printf %s "${new%.}" > etc/pam.d/su
