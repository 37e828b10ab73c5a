# dpkg has checksums of files and of configuration files, and none of links. Links are never followed out of the image.
set -eu
cd "$ROOT"
[ -d var/lib/dpkg ] && [ ! -L var/lib/dpkg ] || { echo "/var/lib/dpkg is missing: nothing to look at"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
brought_in "$folder"
tree_in "$folder" > "$folder/bad"
diversions=/dev/null
[ ! -f var/lib/dpkg/diversions ] || diversions=var/lib/dpkg/diversions
# A file that another package diverts lies where that package says.
divert='
    function plain(name) { sub(/^(\.\/|\/)/, "", name); return name ~ joined ? "usr/" name : name }
    function put(sum, name) { name = plain(name); print sum "  " (name in to && by[name] != owner ? to[name] : name) }
    BEGIN {
        while ((getline from < diversions) > 0 && (getline other < diversions) > 0 && (getline who < diversions) > 0) {
            by[plain(from)] = who; to[plain(from)] = plain(other)
        }
    }'
find var/lib/dpkg/info var/lib/dpkg/status.d -maxdepth 1 -type f -name '*.md5sums' -exec awk -v joined="$joined" -v diversions=$diversions "$divert"'
    FNR == 1 { owner = FILENAME; gsub(/^.*\/|(:[^:]*)?\.md5sums$/, "", owner) }
    { put(substr($0, 1, 32), substr($0, 35)) }' {} + 2>/dev/null | sort -u > "$folder/packaged"
[ -s "$folder/packaged" ] || { echo "no package has checksums: nothing to look at"; exit 1; }
find var/lib/dpkg/status var/lib/dpkg/status.d -maxdepth 1 -type f ! -name '*.md5sums' -exec awk -v joined="$joined" -v diversions=$diversions "$divert"'
    /^Package:/ { owner = $2 }
    !/^ / { inside = /^Conffiles:/; next }
    inside && length($2) == 32 { put($2, $1) }' {} + 2>/dev/null | sort -u - "$folder/packaged" > "$folder/all"
grep -E '^.{34}etc/' "$folder/all" > "$folder/configuration" || true
cut -c 35- "$folder/all" | sort -u > "$folder/names"
awk -F '\t' '$1 == "f" {print $2}' "$folder/tree" | sort > "$folder/files"
awk -F '\t' '$1 != "f" && $1 != "d" {print $2}' "$folder/tree" | sort > "$folder/others"
# Configuration that the definition or a control writes is not the package's any more.
printf '%s\n' "$PARAM_WRITTEN" | sed 's#^/##' | cat "$folder/declared" - > "$folder/written"
awk -v written="$folder/written" 'FILENAME == written {own[$0] = 1; next} !(substr($0, 35) in own)' "$folder/written" "$folder/configuration" |
    { cat; grep -vE '^.{34}etc/' "$folder/all"; } | awk -v files="$folder/files" 'FILENAME == files {here[$0] = 1; next} substr($0, 35) in here' "$folder/files" - > "$folder/wanted"
[ -s "$folder/wanted" ] || { echo "none of the packaged files is here: nothing to look at"; exit 1; }
# Configuration to which a control adds lines, less these.
restored() {
    printf '%s\n' "$PARAM_ADDED" | while IFS=' ' read -r file pattern; do
        [ "$file" = "/$1" ] && grep -qxF -e "$(grep -vxE -e "$pattern" -- "$1" | md5sum | cut -c 1-32)  $1" "$folder/configuration" && echo yes
    done
}
{
    # Its scripts run as root in each build on the image, and by its checksums packaged files are compared.
    sed -n 's#^var/lib/dpkg/.*$#/&: is not for a definition to write#p' "$folder/declared"
    for list in var/lib/dpkg/info/*.list; do
        [ ! -f "$list" ] || [ -f "${list%.list}.md5sums" ] || echo "/$list: is there without the checksums of its package"
    done
    # md5sum passes over a line that holds no checksum.
    grep -vE '^[0-9a-f]{32}  .' "$folder/all" | sed 's#^.\{0,34\}#/#; s#$#: is named without a checksum#' || true
    comm -12 "$folder/listed" "$folder/files" | comm -23 - "$folder/names" | sed 's#^.*$#/&: lies where a package brought something, and has no checksum#'
    # A link in the place of a directory takes all that packages brought in it away, and puts something else there.
    awk -F/ '{path = $1; for (i = 2; i <= NF; i++) {print path; path = path "/" $i}}' "$folder/listed" | sort -u |
        comm -12 - "$folder/others" | grep -vxE 'var/(run|lock)' | sed 's#^.*$#/&: is no folder any more#'
    comm -12 "$folder/names" "$folder/others" | sed 's#^.*$#/&: is no file any more#'
    LC_ALL=C md5sum --check --quiet --strict "$folder/wanted" 2>/dev/null | sed -nE 's#^(.*): FAILED.*$#\1#p' | while IFS= read -r name; do
        [ -n "$(restored "$name")" ] || echo "/$name: is not what its package brought"
    done
    # A packaged link leads to what a package brought, to nothing yet in a folder of the system, or to a listed place.
    awk -v tree="$folder/tree" -v list="$folder/listed" "$follow"'
        BEGIN { count = split(ENVIRON["PARAM_TARGETS"], names, "\n"); for (i = 1; i <= count; i++) usual[substr(names[i], 2)] = 1 }
        END {
            for (one in link) if (one in listed && !brought(one) && !(end(one) in usual) || one ~ /^(bin|sbin|lib|lib32|lib64|libx32)$/ && end(one) != "usr/" one) print "/" one ": leads to /" end(one) ", which no package brought"
        }' "$folder/tree" "$folder/listed"
} >> "$folder/bad"
# What pip installed: the RECORD of a package has checksums of its files. A file of two packages is as one of them says.
awk -F '\t' '$1 == "f" && $2 ~ /\.dist-info\/RECORD$/ {print $2}' "$folder/tree" | sort | comm -23 - "$folder/listed" | sed 's#^#./#' |
    xargs -r -d '\n' awk 'match($0, /,sha256=[^,]*,/) {
        name = substr($0, 1, RSTART - 1); place = FILENAME; sub(/[^\/]*\/RECORD$/, "", place)
        if (name ~ /^"/) { gsub(/^"|"$/, "", name); gsub(/""/, "\"", name) }
        print (name ~ /^\// ? name : place name) "\t" substr($0, RSTART + 8, 43)
    }' > "$folder/records"
awk -v tree="$folder/tree" "$follow"'{ split($0, column, "\t"); path = end(column[1]) } path in there && there[path] == "f" { print path "\t" column[2] }' \
    "$folder/tree" "$folder/records" > "$folder/recorded"
cut -f 1 "$folder/recorded" | sort -u | xargs -r -d '\n' sha256sum -z -- | tr '\0' '\n' | awk -v recorded="$folder/recorded" '
    function base64(three,    bits, i) {
        for (i = 1; i <= 3; i++) bits = bits * 16 + index("123456789abcdef", substr(three, i, 1))
        return substr(letters, int(bits / 64) + 1, 1) substr(letters, bits % 64 + 1, 1)
    }
    BEGIN { letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" }
    FILENAME == recorded { as_recorded[$0] = 1; next }
    {
        path = substr($0, 67); hex = substr($0, 1, 64) "00"; sum = ""
        for (i = 1; i <= 64; i += 3) { part = substr(hex, i, 3); if (!(part in coded)) coded[part] = base64(part); sum = sum coded[part] }
        if (!((path "\t" substr(sum, 1, 43)) in as_recorded)) print "/" path ": is not what the RECORD of its Python package says"
    }' "$folder/recorded" - >> "$folder/bad"
bad=$(awk '!seen[$0]++' "$folder/bad" | refused)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(wc -l < "$folder/wanted") packaged files, each as its package brought it, and $(comm -12 "$folder/listed" "$folder/others" | wc -l) links that lead to such"
