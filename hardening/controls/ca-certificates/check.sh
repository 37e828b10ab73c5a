set -eu
fail() { echo "$*"; exit 1; }
bundle=/etc/ssl/certs/ca-certificates.crt
root=$(realpath -- "$ROOT")
real=$(realpath -e -- "$ROOT$bundle" 2>/dev/null) || fail "$bundle is missing: add the package ca-certificates"
case $real in "${root%/}"/*) ;; *) fail "$bundle leads out of the image" ;; esac
begun=$(grep -c '^-----BEGIN CERTIFICATE-----' "$real" || true)
ended=$(grep -c '^-----END CERTIFICATE-----' "$real" || true)
[ "$begun" = "$ended" ] || fail "$bundle is cut off: $begun certificates begin, $ended end"
[ "$begun" -ge "$PARAM_MINIMUM" ] || fail "$bundle holds $begun certificates, fewer than $PARAM_MINIMUM"
# Every certificate of the bundle, and of what lies beside it, is one of Mozilla's, or of a file that the profile or the
# definition names.
mozilla=/usr/share/ca-certificates/mozilla list=$ROOT/var/lib/dpkg/info/ca-certificates.list
known() {
    find "$ROOT$mozilla" -xdev -type f -name '*.crt' -printf "$mozilla/%P\n" 2>/dev/null |
        if [ -f "$list" ]; then grep -xF -f "$list"; else cat; fi || true
    printf '%s\n' "$PARAM_OWN" | while IFS= read -r file; do
        if [ -f "$ROOT$file" ] && [ ! -L "$ROOT$file" ]; then printf '%s\n' "$file"; fi
    done
}
[ ! -L "$ROOT/etc/ssl/certs" ] || fail "/etc/ssl/certs is a link"
java=/etc/ssl/certs/java/cacerts
[ ! -L "$ROOT$java" ] || fail "$java is a link"
[ -f "$ROOT$java" ] || java=
strangers=$(find "$ROOT/etc/ssl/certs" -xdev -mindepth 1 -maxdepth 1 \
    \( -name '*[[:cntrl:]]*' -printf 'odd name\t/\n' -o -type f -printf '%f\n' -o -type l -printf '%f\t%l\n' \) |
    BUNDLE=$real JAVA=$java KNOWN=$(known) awk -F '\t' '
        # Remembers the certificates of a known file. Of another one, how many blocks are none of them; -1 where it has none.
        function unknown(file, learn,    line, text, inside, blocks, count) {
            while ((getline line < file) > 0)
                if (line ~ /-----BEGIN/) {
                    count += inside; blocks++; text = ""
                    inside = line ~ /^-----BEGIN CERTIFICATE-----[ \t\r]*$/
                    if (!inside) count++
                } else if (inside && line ~ /^-----END CERTIFICATE-----/) {
                    inside = 0
                    if (learn) known[text] = 1; else if (!(text in known)) count++
                } else { gsub(/[ \t\r]/, "", line); text = text line }
            close(file)
            return blocks ? count + inside : -1
        }
        # How many entries of the JKS store of Java are no known certificate; -1 where it is not read to its last byte.
        function unknown_to_java(    i, n, total, line, part, byte, entries, at, size, stop, text, count) {
            while (("od -An -v -tu1 -N 8000000 -- \"$ROOT$JAVA\"" | getline line) > 0) {
                n = split(line, part, " ")
                for (i = 1; i <= n; i++) byte[total++] = part[i]
            }
            # A mark, a version, how many entries; of each a kind, a name, 8 bytes for the time, X.509, a length and the data.
            if (number(byte, 0, 4) != 4277010157 || number(byte, 4, 4) != 2) return -1
            for (at = 12; entries < number(byte, 8, 4); entries++) {
                if (number(byte, at, 4) != 2 || at > total) return -1
                at += 4; at += 2 + number(byte, at, 2) + 8; at += 2 + number(byte, at, 2)
                size = number(byte, at, 4); at += 4; stop = at + size; text = ""
                if (stop > total) return -1
                for (; at < stop; at += 3) {
                    n = byte[at] * 65536 + (at + 1 < stop) * byte[at + 1] * 256 + (at + 2 < stop) * byte[at + 2]
                    text = text digit(n / 262144) digit(n / 4096) (at + 1 < stop ? digit(n / 64) : "=") (at + 2 < stop ? digit(n) : "=")
                }
                at = stop
                if (!(text in known)) count++
            }
            return at + 20 == total ? count + 0 : -1 # a checksum ends it
        }
        function number(byte, at, size,    value) { while (size--) value = value * 256 + byte[at++]; return value }
        function digit(value) { return substr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", int(value) % 64 + 1, 1) }
        BEGIN {
            java = ENVIRON["JAVA"]; root = ENVIRON["ROOT"]; hint = "Mozilla\047s; a file of your own is named in own"
            total = split(ENVIRON["KNOWN"], names, "\n")
            for (i = 1; i <= total; i++) { file[names[i]] = 1; unknown(root names[i], 1) }
            if (count = unknown(ENVIRON["BUNDLE"]))
                print "/etc/ssl/certs/ca-certificates.crt holds " count " certificates that are not " hint
            count = java == "" ? 0 : unknown_to_java()
            if (count < 0) print java " is no JKS store of certificates alone, as the package ca-certificates-java writes it"
            else if (count) print java " holds " count " certificates that are not " hint
        }
        # A link leads to a known file, or to another name here.
        $1 == "ca-certificates.crt" || (NF == 2 && $1 != "java" && ($2 !~ /\// || $2 in file)) { next }
        NF == 1 && unknown(root "/etc/ssl/certs/" $1) == 0 { next }
        { print "/etc/ssl/certs/" $1 " is no certificate of " hint }')
[ -z "$strangers" ] || fail "$strangers"
# What update-ca-certificates joins at its next run, what PostgreSQL's clients and Java believe instead, and where OpenSSL looks.
waiting=$(cd "$ROOT" && find . -xdev ! -type d \( -path './usr/local/share/ca-certificates/*.crt' -o -path '*/.postgresql/root.crt' -o -name jssecacerts -o -name .postgresql -type l \) -printf '/%P\n' |
    grep -vxF -e "$PARAM_OWN" || true)
[ -z "$waiting" ] || fail "$(printf 'is believed, or joins the bundle at its next update, and is not named in own:\n%s' "$waiting")"
for link in "certs /etc/ssl/certs" "cert.pem $bundle"; do
    at=usr/lib/ssl/${link%% *}
    { [ ! -e "$ROOT/$at" ] && [ ! -L "$ROOT/$at" ]; } || [ "$(readlink -- "$ROOT/$at" || true)" = "${link#* }" ] ||
        fail "/$at does not lead to ${link#* }: OpenSSL believes others"
done
[ "$(stat -c %a "$real")" = 644 ] || fail "$bundle has mode $(stat -c %a "$real"), not 644"
echo "$bundle holds $begun certificates"
