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
# Base64 text may hold what looks like an AWS key id after a slash; the others carry an underscore or a dash, and may not.
token='(^|[^A-Za-z0-9/+_-])(AKIA|ASIA)[A-Z0-9]{16}([^A-Za-z0-9/+_-]|$)|(^|[^A-Za-z0-9+_-])(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{80}|glpat-[A-Za-z0-9_-]{20}|xox[abprs]-[0-9]+-[A-Za-z0-9-]{20}|sk_live_[A-Za-z0-9]{24}|AIza[A-Za-z0-9_-]{35}|npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{50})([^A-Za-z0-9/+_-]|$)'
login='"(auth|identitytoken|registrytoken|password)"[[:space:]]*:[[:space:]]*"[^"]'
# What any of these holds, without what may stand around it: quick, also where a file is no text.
shape='PRIVATE KEY( BLOCK)?-----|(AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_|glpat-|xox[abprs]-|sk_live_|AIza|npm_[A-Za-z0-9]{36}|pypi-AgEI|"auths"|:[$][0-9a-z]{1,3}[$]'
hash='^[^:[:space:]]+:[$](1|2[abxy]?|5|6|7|y|gy)[$][^:[:space:]]{8,}(:|$)'

contents() {
    find . -xdev -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -type f -size +15c -print0 > "$folder/names"
    xargs -0 -r grep -laE -e "$shape" -- < "$folder/names" | while IFS= read -r file; do
        # Programs of packages hold keys for their own tests; others are compared with what packages brought.
        ! grep -qxF -e "${file#./}" "$folder/listed" || grep -qI -e '' -- "$file" || continue
        # A real key has at least two lines of data after its header, or its data on the header's line.
        if grep -aE -A 60 -e "$key" -- "$file" | grep -qaE -e '^[^[:graph:]]*[A-Za-z0-9+/]{40,}' -e '\\[nr][A-Za-z0-9+/=]{20,}'; then
            echo "${file#.}: a private key"
        elif grep -aoE -e "$token" -- "$file" | grep -qavE 'EXAMPLE|example'; then
            echo "${file#.}: an access token"
        elif grep -qaE '"auths"[[:space:]]*:' -- "$file" && grep -qaE -e "$login" -- "$file"; then
            echo "${file#.}: a login to a registry"
        elif [ "${file%-}" != ./etc/shadow ] && grep -qaE -e "$hash" -- "$file"; then
            echo "${file#.}: hashes of passwords"
        fi
    done
    # The same key in UTF-16.
    xargs -0 -r grep -laP 'B\x00E\x00G\x00I\x00N\x00 \x00' -- < "$folder/names" | while IFS= read -r file; do
        ! tr -d '\0' < "$file" | grep -qaE -e "$key" || echo "${file#.}: a private key"
    done
}

names() {
    find . -xdev \( -type f -o -type l \) \( -name .netrc -o -name _netrc -o -name .git-credentials -o -name .pgpass \
        -o -name .vault-token -o -name .pypirc -o -name .htpasswd -o -name id_rsa -o -name id_dsa -o -name id_ecdsa -o -name id_ed25519 \
        -o -path '*/.aws/credentials' -o -path '*/.docker/config.json' -o -path '*/.kube/config' \
        -o -path '*/.config/gh/hosts.yml' -o -path '*/.config/gcloud/*credentials*' -o -path './run/secrets/*' \
        -o -path './etc/apt/auth.conf' -o -path './etc/apt/auth.conf.d/*' -o -path './etc/ssl/private/*' \) \
        -printf '/%P: a file for credentials\n'
    find . -xdev -type f -name .npmrc -exec grep -lE '_(authToken|auth|password)' -- {} + 2>/dev/null |
        sed 's/^\.//; s/$/: a token of npm/'
    find . -xdev -type f -size +0 -perm /0004 \( -name 'shadow*' -o -name 'gshadow*' -o -name '*shadow' \) \
        -exec grep -laE '^[^:[:space:]]+:[^:[:space:]]*:[^:[:space:]]*:[^:[:space:]]*(:|$)' -- {} + 2>/dev/null |
        # A package's own file is none, however it is called: /usr/share/locale/eu/LC_MESSAGES/shadow.mo.
        while IFS= read -r file; do
            case $file in ./etc/shadow* | ./etc/gshadow*) ;; *) ! grep -qxF -e "${file#./}" "$folder/listed" || continue ;; esac
            printf '%s\n' "$file"
        done | sed 's/^\.//; s/$/: passwords of accounts that everybody may read/'
}

bad=$({ contents; names; } | sort -u | while IFS= read -r line; do
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
echo "$files files: no private keys, access tokens or credential files"
