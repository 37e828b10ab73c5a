set -eu
cd "$ROOT"
files=$(find . -xdev ! -type d | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
found=$(find . -xdev ! -type d \( -name 'authorized_keys*' -o -name 'authorized_principals*' -o -path '*/authorized_keys.d/*' \
    -o -name .shosts -o -name .rhosts -o -name shosts.equiv -o -name hosts.equiv \) -printf '/%P lets people in\n'
    grep -siE '^[[:space:]]*(AuthorizedKeysCommand|TrustedUserCAKeys)[[:space:]=]+[^n[:space:]]' -r etc/ssh | sed 's/^/\//' || true)
if [ -n "$found" ]; then
    printf '%s\n' "$found" | sort
    exit 1
fi
echo "$files files, no key or trusted host among them"
