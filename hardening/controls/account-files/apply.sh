set -eu
cd "$ROOT"
set_to() { # path mode group
    [ -f "$1" ] && [ ! -L "$1" ] || return 0
    [ "$(stat -c '%a %u:%g' "$1")" = "$2 0:$3" ] || { chmod "$2" "$1" && chown "0:$3" "$1"; }
}
shadow=$(sed -n 's/^shadow:[^:]*:\([0-9]*\):.*/\1/p' etc/group 2>/dev/null || true)
for file in passwd passwd- group group- shells; do set_to etc/$file 644 0; done
for file in shadow shadow- gshadow gshadow-; do set_to etc/$file 640 "${shadow:-0}"; done
for file in opasswd opasswd.old; do set_to etc/security/$file 600 0; done
