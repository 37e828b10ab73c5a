# Prints paths and kinds, never what it found: evidence is published.
set -eu
cd "$ROOT"
files=$(find . -xdev -type f | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
brought_in "$folder"

# A key is a header that stands alone on its line, or is followed by data; a program that merely knows the header is none.
# Bytes that are no text hide nothing.
key='(^|["'"'"'=:]|[^[:graph:]])-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----[^[:graph:]]*(\\[nr]|$)'
# In a file of another kind, such as a database, anything may stand before the header, but its data follow at once.
whole='-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----\s+([A-Za-z-]+: \V*\s+)*[A-Za-z0-9+/]{40,}={0,2}\s'
# Base64 text may hold what looks like an AWS key id after a slash; the others carry an underscore or a dash, and may not.
# Formats with a line of their own, and the PEM header in base64, as kubeconfigs and secrets of Kubernetes hold it.
other='AGE-SECRET-KEY-1[A-Z0-9]{50}|^PuTTY-User-Key-File-[0-9]|^-----BEGIN OpenVPN [A-Za-z0-9 -]*[Kk]ey( V1)?-----|^(Key: \((protected-)?private-key|\((11:private|21:protected-private)-key\()|^[[:space:]]*(PrivateKey|PresharedKey)[[:space:]]*=[[:space:]]*[A-Za-z0-9+/]{43}=|"private_key_pem":[[:space:]]*"[^"]|LS0tLS1CRUdJTiB[A-Za-z0-9+/]{0,16}(QUklWQVRF|UFJJVkFURS|BSSVZBVEU)'
token='(^|[^A-Za-z0-9/+_-])(AKIA|ASIA)[A-Z0-9]{16}([^A-Za-z0-9/+_-]|$)|(^|[^A-Za-z0-9+_-])(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{80,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[0-9]+-[A-Za-z0-9-]{20,}|[rs]k_live_[A-Za-z0-9]{24,}|AIza[A-Za-z0-9_-]{35}|npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{50,})([^A-Za-z0-9/+_-]|$)'
# Lines that give a password to a server: of snmpd, and of BIND's channels.
server='^[[:space:]]*create[Uu]ser[[:space:]].*[[:space:]](MD5|SHA[0-9-]*)[[:space:]]|secret[[:space:]]+"[A-Za-z0-9+/]{16,}={0,2}"[[:space:]]*;'
jwk='"[dk]"[[:space:]]*:[[:space:]]*"[A-Za-z0-9_-]{32,}"'
login='"(auth|identitytoken|registrytoken|password)"[[:space:]]*:[[:space:]]*"[^"]'
# What any of these holds, and a key in UTF-16, without what may stand around it: quick, also where a file is no text.
shape='B[^!-~]E[^!-~]G[^!-~]I[^!-~]N[^!-~] |PRIVATE KEY( BLOCK)?-----|(AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_|glpat-|xox[abprs]-|[rs]k_live_|AIza|npm_[A-Za-z0-9]{36}|pypi-AgEI|AGE-SECRET-KEY-1|PuTTY-User-Key|-----BEGIN OpenVPN|private-key|(PrivateKey|PresharedKey)[[:space:]]*=|"private_key_pem"|create[Uu]ser|secret[[:space:]]+"|"kty"|LS0tLS1CRUdJTiB|"auths"|:[$][0-9a-z]{1,3}[$]'
hash='^[^:[:space:]]+:[$](1|2[abxy]?|5|6|7|y|gy)[$][^:[:space:]]{8,}(:|$)'

contents() {
    find . -xdev -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -type f -size +0 -print0 > "$folder/names"
    xargs -0 -r grep -laE -e "$shape" -- < "$folder/names" | while IFS= read -r file; do
        # The same key in UTF-16, which programs of packages do not hold.
        if grep -qaP 'B\x00E\x00G\x00I\x00N\x00 \x00' -- "$file" && tr -d '\0' < "$file" | grep -qaE -e "$key"; then
            echo "${file#.}: a private key"
            continue
        fi
        # Programs of packages hold keys for their own tests; others are compared with what packages brought.
        ! grep -qxF -e "${file#./}" "$folder/listed" || grep -qI -e '' -- "$file" || continue
        # A real key has at least two lines of data after its header, or its data on the header's line.
        if grep -aE -A 60 -e "$key" -- "$file" | grep -qaE -e '^[^[:graph:]]*[A-Za-z0-9+/]{40,}' -e '\\[nr][A-Za-z0-9+/=]{20,}' ||
            grep -qaE -e "$other" -- "$file" || grep -qzaP -e "$whole" -- "$file"; then
            echo "${file#.}: a private key"
        elif grep -aoE -e "$token" -- "$file" | grep -qavE 'EXAMPLE|example'; then
            echo "${file#.}: an access token"
        elif grep -qaE '"auths"[[:space:]]*:' -- "$file" && grep -qaE -e "$login" -- "$file"; then
            echo "${file#.}: a login to a registry"
        elif grep -qaE '"kty"[[:space:]]*:' -- "$file" && grep -qaE -e "$jwk" -- "$file"; then
            echo "${file#.}: a private key"
        elif grep -qaE -e "$server" -- "$file"; then
            echo "${file#.}: a password of a server"
        elif [ "${file%-}" != ./etc/shadow ] && grep -qaE -e "$hash" -- "$file"; then
            echo "${file#.}: hashes of passwords"
        fi
    done
}

keyed() { grep -aE -A 60 -e "$key" -e "$other" | grep -qaE -e '^[^[:graph:]]*[A-Za-z0-9+/]{40,}' -e "$other"; }

# Keys that are no text, in files that no package brought.
encoded() {
    find . -xdev -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -type f -size -1024k -printf '%P\n' |
        sort | comm -23 - "$folder/listed" | tr '\n' '\0' > "$folder/own"
    # All at once first: most images hold none.
    xargs -0 -r grep -lZzaP '\A\x1f\x8b' -- < "$folder/own" > "$folder/packed" || true
    if xargs -0 -r gzip -dc -- < "$folder/packed" 2>/dev/null | keyed; then
        tr '\0' '\n' < "$folder/packed" | while IFS= read -r file; do
            ! gzip -dc -- "$file" 2>/dev/null | keyed || echo "/$file: a private key"
        done
    fi
    xargs -0 -r grep -lzaP '(?s)\A(0([\x02-\x7f]|\x81.|\x82..)\x02\x01|0\x82.$|\xfe\xed\xfe\xed|\x05\x02\z)' -- < "$folder/own" | while IFS= read -r file; do
        begins=$(od -An -v -tx1 -N 24 -- "$file" | tr -d ' \n') is=
        case $begins in
            # A keytab of Kerberos: a length below 64 KiB, then up to 15 names.
            05020000????000?*) is=1 ;;
            # A Java keystore whose first entry is a key; the authorities of Java are certificates alone.
            feedfeed????????????????00000001*) is=1 ;;
            # PKCS#12 with a bag of a key.
            30??020103* | 3081??020103* | 3082????020103*) grep -qzaP '\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01[\x01\x02]' -- "$file" && is=1 ;;
            # A sequence that begins with a version, and goes on as PKCS#8, PKCS#1 or SEC1.
            30*) printf '%s\n' "$begins" | grep -qE '^30([0-7].|81..|82....)(02010[01]30([0-7].|81..)06|020100028[12]|02010104(20|30|42))' && is=1 ;;
        esac
        [ -z "$is" ] || echo "/$file: a private key"
    done
}

# named REGEX: of the files that may hold anything those whose path matches, each ended by a NUL byte.
named() { grep -zE -e "$1" -- "$folder/names" || true; }

names() {
    find . -xdev \( -type f -o -type l \) \( -name .netrc -o -name _netrc -o -name .git-credentials -o -name .pgpass \
        -o -name .vault-token -o -name '.vault[-_]pass*' -o -name .pypirc -o -name .htpasswd -o -name id_rsa -o -name id_dsa -o -name id_ecdsa -o -name id_ed25519 \
        -o -path '*/.aws/credentials' -o -path '*/.docker/config.json' -o -path '*/.kube/config' \
        -o -path '*/.config/gh/hosts.yml' -o -path '*/.config/gcloud/*credentials*' -o -path './run/secrets/*' \
        -o -path '*/.gnupg/private-keys-v1.d/*' -o -name secring.gpg -o -name .terraformrc -o -name credentials.tfrc.json -o -name 'terraform.tfstate*' \
        -o -name application_default_credentials.json -o -path './etc/apt/auth.conf' -o -path './etc/apt/auth.conf.d/*' -o -path './etc/ssl/private/*' \) \
        -printf '/%P: a file for credentials\n'
    named '/\.npmrc$' | xargs -0 -r grep -lE '_(authToken|auth|password)' -- |
        sed 's/^\.//; s/$/: a token of npm/'
    named '/\.my(login)?\.cnf$' | xargs -0 -r grep -laE '^[[:space:]]*(password|pass)[[:space:]]*=|[^[:print:][:space:]]' -- |
        sed 's/^\.//; s/$/: a password of MySQL/'
    named '^\./var/cache/debconf/passwords\.dat[^/]*$' | xargs -0 -r grep -lE '^Value: *[^[:space:]]' -- | sed 's/^\.//; s/$/: answers to debconf/'
    # A package brings its file with "" and "*" for passwords.
    named '^\./etc/ppp/.*-secrets$' | xargs -0 -r -n 1 awk '!/^[[:space:]]*(#|@|$)/ && $3 !~ /^"?[*]?"?$/ { print substr(FILENAME, 2) ": a password of PPP"; exit }'
    find . -xdev -type f -size +0 -perm /0004 \( -name 'shadow*' -o -name 'gshadow*' -o -name '*shadow' \) \
        -exec grep -laE '^[^:[:space:]]+:[^:[:space:]]*:[^:[:space:]]*:[^:[:space:]]*(:|$)' -- {} + 2>/dev/null |
        # A package's own file is none, however it is called: /usr/share/locale/eu/LC_MESSAGES/shadow.mo.
        while IFS= read -r file; do
            case $file in ./etc/shadow* | ./etc/gshadow*) ;; *) ! grep -qxF -e "${file#./}" "$folder/listed" || continue ;; esac
            printf '%s\n' "$file"
        done | sed 's/^\.//; s/$/: passwords of accounts that everybody may read/'
}

# What was deleted from a repository is still in its history. Those of packages are for their own tests.
histories() {
    named '/(objects/(pack/pack-[^/]*|[0-9a-f]{2}/[0-9a-f]{38,})|\.hg/store/00changelog\.i|\.svn/wc\.db)$' |
        tr '\0' '\n' | sed 's#^\./##' | sort | comm -23 - "$folder/listed" |
        sed -nE 's#/(objects/(pack/pack-[^/]*|[0-9a-f]{2}/[0-9a-f]{38,})|store/00changelog.i|wc.db)$##p' | sort -u |
        while IFS= read -r file; do
            case $file in
                .git | */.git | *.hg | *.svn) ;;
                *) [ -f "$file/HEAD" ] || continue ;;
            esac
            echo "/$file: the history of a repository, remove it in the step that brings it"
        done
}

bad=$({ contents; encoded; names; histories; } | sort -u | while IFS= read -r line; do
    allowed=
    # Patterns must not expand against the files of the host.
    set -f
    for pattern in $PARAM_ALLOW; do
        # shellcheck disable=SC2254
        case ${line%: *} in $pattern) allowed=1 ;; esac
    done
    [ -n "$allowed" ] || echo "$line"
done)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$files files: no private keys, access tokens, credential files or histories of repositories"
