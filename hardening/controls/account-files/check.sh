set -eu
cd "$ROOT"
for file in etc/passwd etc/group etc/shadow; do
    [ -s $file ] && [ ! -L $file ] || { echo "/$file is missing: nothing to look at"; exit 1; }
done
shadow=$(sed -n 's/^shadow:[^:]*:\([0-9]*\):.*/\1/p' etc/group)
bad=$(
    for file in etc/passwd etc/passwd- etc/group etc/group- etc/shells; do
        [ -e $file ] || continue
        find $file \( -type l -o ! -uid 0 -o ! -gid 0 -o -perm /0133 \) -printf '/%p has mode and owner %m %U:%G, not 644 0:0\n'
    done
    for file in etc/shadow etc/shadow- etc/gshadow etc/gshadow-; do
        [ -e $file ] || continue
        find $file \( -type l -o ! -uid 0 -o ! -gid 0 ! -gid "${shadow:-0}" -o -perm /0137 \) \
            -printf '/%p has mode and owner %m %U:%G, not 640 root:shadow\n'
    done
    # A list of its own (ACL) gives rights that the mode does not tell; ls marks it with a +.
    ls -ld etc/passwd* etc/group* etc/shadow* etc/gshadow* etc/security/opasswd* 2>/dev/null |
        sed -nE 's,^[^ ]{10}\+.* (etc/[^ ]*)$,/\1 has a list of rights (ACL) beside its mode,p'
    for file in etc/security/opasswd etc/security/opasswd.old; do
        [ -e $file ] || continue
        find $file \( -type l -o ! -uid 0 -o ! -gid 0 -o -perm /0177 \) -printf '/%p has mode and owner %m %U:%G, not 600 0:0\n'
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
printf 'as they should be:\n%s\n' "$(stat -c '%n %a %U:%G' etc/passwd etc/group etc/shadow)"
