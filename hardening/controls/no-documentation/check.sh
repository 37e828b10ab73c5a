set -eu
[ -d "$ROOT/usr/share" ] && [ ! -L "$ROOT/usr/share" ] || { echo "/usr/share is missing: nothing to look at"; exit 1; }
cd "$ROOT/usr/share"
licences=$(find doc -mindepth 2 -name copyright 2>/dev/null | wc -l)
[ "$licences" -gt 0 ] || { echo "no copyright file is left under /usr/share/doc: the licences must stay"; exit 1; }
bad=$(
    if [ "$PARAM_KEEP_MANUALS" = false ]; then
        find doc -xdev -mindepth 2 ! -type d ! -name copyright
        find man info lintian groff gtk-doc doc-base -xdev ! -type d 2>/dev/null || true
    fi
    for folder in locale/*/; do
        name=${folder#locale/}
        name=${name%/}
        [ -d "locale/$name" ] || continue
        printf '%s\n' "$PARAM_KEEP_LOCALES" | grep -qxF -e "$name" || echo "locale/$name"
    done
)
if [ -n "$bad" ]; then
    printf 'documentation and translations under /usr/share:\n%s\n' "$bad"
    exit 1
fi
echo "$licences copyright files kept, no other documentation"
