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
[ "$(stat -c %a "$real")" = 644 ] || fail "$bundle has mode $(stat -c %a "$real"), not 644"
echo "$bundle holds $begun certificates"
