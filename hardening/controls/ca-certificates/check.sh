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
# Every certificate in it is one of Mozilla's, or of a file that the profile or the definition names.
known() {
    list=$ROOT/var/lib/dpkg/info/ca-certificates.list
    find "$ROOT/usr/share/ca-certificates/mozilla" -xdev -type f -name '*.crt' -printf '%P\n' 2>/dev/null | while IFS= read -r name; do
        [ -f "$list" ] && ! grep -qxF -e "/usr/share/ca-certificates/mozilla/$name" "$list" ||
            cat -- "$ROOT/usr/share/ca-certificates/mozilla/$name"
    done
    printf '%s\n' "$PARAM_OWN" | while IFS= read -r file; do
        if [ -f "$ROOT$file" ] && [ ! -L "$ROOT$file" ]; then cat -- "$ROOT$file"; fi
    done
}
strangers=$({ known; echo "--- the bundle"; cat -- "$real"; } | awk '
    /^--- the bundle$/ {bundle = 1}
    /^-----BEGIN CERTIFICATE-----/ {text = ""; inside = 1; next}
    /^-----END CERTIFICATE-----/ {inside = 0; if (!bundle) known[text] = 1; else if (!(text in known)) count++; next}
    inside {gsub(/[[:space:]]/, ""); text = text $0}
    END {print count + 0}')
[ "$strangers" = 0 ] || fail "$bundle holds $strangers certificates that are not Mozilla's; a file of your own is named in own"
[ "$(stat -c %a "$real")" = 644 ] || fail "$bundle has mode $(stat -c %a "$real"), not 644"
echo "$bundle holds $begun certificates"
