# dpkg's own checksums, which leave out configuration files. Where directories were joined (/bin to /usr/bin), older
# packages name their files without /usr. Links are never followed: a link in the place of a file is a change.
set -eu
cd "$ROOT"
info=var/lib/dpkg/info
[ -d $info ] && [ ! -L $info ] || { echo "/$info is missing: nothing to look at"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
find $info -maxdepth 1 -type f -name '*.md5sums' -exec cat -- {} + |
    sed -E -e 's#  (\./)?(bin|sbin|lib|lib32|lib64|libx32)/#  usr/\2/#' -e 's#  \./#  #' | sort -u > "$folder/sums"
[ -s "$folder/sums" ] || { echo "no package has checksums: nothing to look at"; exit 1; }
cut -c 35- "$folder/sums" | sort -u > "$folder/names"
# What dpkg was told to put elsewhere belongs to the package that told it.
if [ -f var/lib/dpkg/diversions ]; then sed -n '1~3s#^/##p' var/lib/dpkg/diversions | sort -u > "$folder/diverted"; else : > "$folder/diverted"; fi

find . -xdev ! -type d ! -type f -printf '%P\n' | sort > "$folder/others"
find . -xdev -type f -printf '%P\n' | sort > "$folder/files"
comm -12 "$folder/names" "$folder/files" > "$folder/present"
grep -vxF -f "$folder/diverted" "$folder/present" > "$folder/looked" || true
awk 'FNR == NR {wanted[$0] = 1; next} substr($0, 35) in wanted' "$folder/looked" "$folder/sums" > "$folder/wanted"
[ -s "$folder/wanted" ] || { echo "none of the packaged files is here: nothing to look at"; exit 1; }
# A link in the place of a directory takes all that packages brought in it away, and puts something else there.
awk -F/ '{path = $1; for (i = 2; i <= NF; i++) {print path; path = path "/" $i}}' "$folder/names" | sort -u > "$folder/folders"
bad=$(
    for list in $info/*.list; do
        [ -f "${list%.list}.md5sums" ] || echo "/$list is there without the checksums of its package"
    done
    # md5sum passes over a line that holds no checksum.
    grep -vE '^[0-9a-f]{32}  .' "$folder/sums" | sed 's#^.\{0,34\}#/#; s#$# is named without a checksum#' || true
    comm -12 "$folder/folders" "$folder/others" | sed 's#^.*$#/& is no folder any more#'
    comm -12 "$folder/names" "$folder/others" | sed 's#^.*$#/& is no file any more#'
    LC_ALL=C md5sum --check --quiet --strict "$folder/wanted" 2>/dev/null | sed -E 's#^(.*): FAILED.*$#/\1 is not what its package brought#'
)
bad=$(printf '%s\n' "$bad" | sort -u | while IFS= read -r line; do
    [ -n "$line" ] || continue
    printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "${line%% is *}" || echo "$line"
done)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(wc -l < "$folder/wanted") packaged files, each as its package brought it"
