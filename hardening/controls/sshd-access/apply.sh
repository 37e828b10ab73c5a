set -eu
sshd_set AllowGroups "$(printf '%s' "$PARAM_GROUPS" | tr '\n' ' ')"
cd "$ROOT"
[ -f etc/group ] && [ ! -L etc/group ] || exit 0
add() { [ -z "$(tail -c 1 "$1")" ] || echo >> "$1"; printf '%s\n' "$2" >> "$1"; }
for group in $PARAM_GROUPS; do
    ! grep -q "^$group:" etc/group || continue
    gid=999
    while grep -q "^[^:]*:[^:]*:$gid:" etc/group; do gid=$((gid - 1)); done
    add etc/group "$group:x:$gid:"
    [ ! -f etc/gshadow ] || [ -L etc/gshadow ] || add etc/gshadow "$group:!::"
done
