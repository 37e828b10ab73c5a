# Builds the bundle where no update-ca-certificates ran: in an image whose packages were unpacked, never configured.
set -eu
cd "$ROOT"
bundle=etc/ssl/certs/ca-certificates.crt
[ ! -e "$bundle" ] || exit 0
[ -d usr/share/ca-certificates/mozilla ] || exit 0
mkdir -p etc/ssl/certs
find usr/share/ca-certificates/mozilla usr/local/share/ca-certificates -type f -name '*.crt' 2>/dev/null | sort |
    while IFS= read -r file; do cat -- "$file"; done > "$bundle"
chmod 0644 "$bundle"
