set -eu
sshd_set AllowGroups "$(printf '%s' "$PARAM_GROUPS" | tr '\n' ' ')"
cd "$ROOT"
[ -f etc/group ] && [ ! -L etc/group ] || exit 0
for group in $PARAM_GROUPS; do
    ! grep -q "^$group:" etc/group || continue
    gid=999
    while grep -q "^[^:]*:[^:]*:$gid:" etc/group; do gid=$((gid - 1)); done
    append etc/group "$group:x:$gid:"
    [ ! -f etc/gshadow ] || [ -L etc/gshadow ] || append etc/gshadow "$group:!::"
done
