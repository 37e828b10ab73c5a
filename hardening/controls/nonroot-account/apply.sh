# Adds the account by hand: an image without a shell has no tools for it, and the tools would note today's date.
set -eu
cd "$ROOT"
name=$PARAM_NAME
uid=$PARAM_UID
# Touches only what is wrong: whatever is touched ends up in a child image's layer.
folder() { # path mode owner
    [ -d "$1" ] || mkdir -p "$1"
    [ "$(stat -c '%a %u:%g' "$1")" = "$2 $3" ] || { chmod "$2" "$1" && chown "$3" "$1"; }
}
mkdir -p etc home
folder root 700 0:0
[ -e etc/passwd ] || echo 'root:x:0:0:root:/root:/usr/sbin/nologin' > etc/passwd
[ -e etc/group ] || echo 'root:x:0:' > etc/group
[ -e etc/shadow ] || (umask 077 && echo 'root:*::0:99999:7:::' > etc/shadow)
add() { grep -q "^$name:" "$1" || append "$1" "$2"; }
add etc/passwd "$name:x:$uid:$uid:$name:/home/$name:/usr/sbin/nologin"
add etc/group "$name:x:$uid:"
add etc/shadow "$name:!*::0:99999:7:::"
[ ! -e etc/gshadow ] || add etc/gshadow "$name:!::"
folder "home/$name" 700 "$uid:$uid"
