set -eu
sshd_set AllowGroups "$(printf '%s' "$PARAM_GROUPS" | tr '\n' ' ')"
cd "$ROOT"
[ -f etc/group ] && [ ! -L etc/group ] || exit 0
for group in $PARAM_GROUPS; do
    ! grep -q "^$group:" etc/group || continue
    gid=999
    while grep -q "^[^:]*:[^:]*:$gid:" etc/group; do gid=$((gid - 1)); done
    echo "$group:x:$gid:" >> etc/group
    [ ! -f etc/gshadow ] || [ -L etc/gshadow ] || echo "$group:!::" >> etc/gshadow
done
