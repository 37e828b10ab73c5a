set -eu
cd "$ROOT"
programs=$(find usr opt -xdev ! -type d -path '*bin/*' -printf '%f\t/%p\n' 2>/dev/null || true)
[ -n "$programs" ] || { echo "no programs under /usr: nothing to look at"; exit 1; }
found=$(printf '%s\n' "$programs" | awk -F'\t' -v allow="$PARAM_ALLOW" '
    BEGIN {split(allow, names, "\n"); for (i in names) allowed[names[i]] = 1}
    allowed[$1] {next}
    $1 ~ /^(inetutils-|netkit-|rsh-redone-|telnet-)?(telnet|telnet-ssl|rsh|rlogin|rcp|rexec|talk|ntalk|ftp|tftp)$/ \
        || $1 ~ /^(netkit-ftp|pftp|tnftp|ypbind|ypcat|ypmatch|yppasswd|ypwhich|ldapsearch|ldapadd|ldapmodify|ldapdelete)$/ {print $2}' | sort)
if [ -n "$found" ]; then
    printf 'clients for protocols without encryption:\n%s\n' "$found"
    exit 1
fi
echo "$(printf '%s\n' "$programs" | wc -l) programs, none of them such a client"
