set -eu
cd "$ROOT/usr/share"
if [ "$PARAM_KEEP_MANUALS" = false ]; then
    # Links directly under doc/ lead to another package's folder and so to its licence.
    [ ! -d doc ] || find doc -xdev -mindepth 2 ! -type d ! -name copyright -exec rm -f -- {} +
    [ ! -d doc ] || find doc -xdev -depth -mindepth 1 -type d -empty -delete
    # The folders of the manuals stay: installation scripts expect them.
    [ ! -d man ] || find man -xdev ! -type d -exec rm -f -- {} +
    rm -rf -- info lintian groff gtk-doc doc-base
fi
[ -d locale ] || exit 0
for folder in locale/*/; do
    name=${folder#locale/}
    name=${name%/}
    [ -d "locale/$name" ] || continue
    printf '%s\n' "$PARAM_KEEP_LOCALES" | grep -qxF -e "$name" || rm -rf -- "locale/${name:?}"
done
