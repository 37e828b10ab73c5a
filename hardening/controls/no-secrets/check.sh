# Prints paths and kinds, never what it found: evidence is published.
set -eu
cd "$ROOT"
files=$(find . -xdev -type f | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }

# A key is a header that stands alone on its line, or is followed by data; a program that merely knows the header is none.
key='(^|["'"'"'[:space:]=:])-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----[[:space:]]*(\\[nr]|$)'
# Base64 text may hold what looks like an AWS key id after a slash; the others carry an underscore or a dash, and may not.
token='(^|[^A-Za-z0-9/+_-])(AKIA|ASIA)[A-Z0-9]{16}([^A-Za-z0-9/+_-]|$)|(^|[^A-Za-z0-9+_-])(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{80}|glpat-[A-Za-z0-9_-]{20}|xox[abprs]-[0-9]+-[A-Za-z0-9-]{20}|sk_live_[A-Za-z0-9]{24}|AIza[A-Za-z0-9_-]{35}|npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{50})([^A-Za-z0-9/+_-]|$)'

contents() {
    find . -xdev -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -type f -size +15c -print0 |
        xargs -0 -r grep -lIE -e "$key" -e "$token" -- | while IFS= read -r file; do
        # A real key has at least two lines of data after its header, or its data on the header's line.
        if grep -E -A 60 -e "$key" -- "$file" | grep -qE -e '^[[:space:]]*[A-Za-z0-9+/]{40,}' -e '\\[nr][A-Za-z0-9+/=]{20,}'; then
            echo "${file#.}: a private key"
        elif grep -oE -e "$token" -- "$file" | grep -qvE 'EXAMPLE|example'; then
            echo "${file#.}: an access token"
        fi
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
