# What programs are found in, and what they load code from: there nothing lies but what packages brought, links to that,
# the files of the definition, and what reviewers allowed.
set -eu
cd "$ROOT"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
brought_in "$folder"
tree_in "$folder" > "$folder/found"
grep -q '	usr/' "$folder/tree" || { echo "no files in /usr: nothing to look at"; exit 1; }
# Folders that come before /usr/bin in the image's PATH, and folders of the linker.
{
    printf '/usr/local/sbin\n/usr/local/bin\n/usr/local/games\n'
    sed -nE 's/^   "PATH=(.*)",?$/\1/p' "$IMAGE_CONFIG" | tr ':' '\n' | sed -E '/^\/(usr\/)?bin\/?$/,$d'
} > "$folder/before"
{
    printf '/usr/local/lib\n'
    find etc/ld.so.conf etc/ld.so.conf.d -type f -exec grep -h '^/' {} + 2>/dev/null || true
} > "$folder/linker"
# The linker's cache holds names and paths between other bytes; other caches name modules among other words.
{
    [ ! -f etc/ld.so.cache ] || [ -L etc/ld.so.cache ] || tr -c '\40-\176' '\n' < etc/ld.so.cache | grep / || true
    find usr/lib -xdev -type f \( -name loaders.cache -o -name immodules.cache -o -name giomodule.cache \) -exec cat -- {} + | tr ' "' '\n' | grep '^/' || true
    find etc/odbcinst.ini etc/odbc.ini -type f -exec sed -nE 's#^[[:space:]]*(Driver|Setup)(64)?[[:space:]]*=[[:space:]]*(.*/.*[^[:space:]])[[:space:]]*$#\3#Ip' {} + 2>/dev/null || true
} > "$folder/cache"
awk -v tree="$folder/tree" -v list="$folder/listed" -v own="$folder/declared" -v before="$folder/before" -v linker="$folder/linker" \
    -v cache="$folder/cache" "$follow"'
    BEGIN { levels = "/(glibc-hwcaps/[^/]+|tls|haswell|x86_64|avx512_1)$" }
    FILENAME == own { declared[$0] = 1; next }
    FILENAME == before { sub(/\/$/, ""); first[end($0)] = 1; next }
    FILENAME == linker { libraries[end($0)] = 1; next }
    FILENAME == cache {
        path = $0; sub(/^[^\/]*/, "", path); path = end(path)
        if (length($0) < 3 && !(path in there)) next # numbers between the names
        if (!($0 ~ /^\// && brought(path)) && !(path in declared)) print "/" path ": a cache of libraries or a list of drivers names it, and no package brought it"
        next
    }
    function reason(path, place, name,    parts) {
        # What Python makes of a packaged module when its package is configured.
        if (place ~ /\/__pycache__$/ && name ~ /\.cpython-[0-9]+(\.opt-[12])?\.pyc$/ && split(name, parts, ".") &&
            (substr(place, 1, length(place) - 11) parts[1] ".py") in listed) return ""
        if (path ~ /^(usr\/)?(bin|sbin|games|lib|lib32|lib64|libx32|libexec)\//) return "no package brought it"
        if (path ~ /^usr\/share\/[^\/]+\// && (split(path, parts, "/") && "usr/share/" parts[3] in listed)) return "no package brought it"
        if (path ~ /^etc\/alternatives\//) return "leads to /" end(path) ", which no package brought"
        sub(levels, "", place)
        if (place in libraries && name ~ /\.so(\.|$)/) return "is a library that no package brought"
        if (path ~ /^etc\/ld\.so\.(cache|conf)$/ && path in link) return "is a link, and may name any library"
        if (path in link && is_folder(end(path)) && path ~ /^(usr\/local\/(lib|share)|etc)\/(perl|python|site_|lua|node|php|ruby|[^\/]*-linux-gnu)[^\/]*$/)
            return "leads to /" end(path) ", from where code is loaded"
        if (path ~ code) return "is loaded as code, and no package brought it"
    }
    # The packaged library or module of Python in whose place the file is loaded.
    function before_packaged(path, place, name,    parts) {
        sub(levels, "", place)
        if (name in library && (place in libraries || place ~ /^usr\/lib(32|64|x32)?(\/[^\/]*-linux-gnu[^\/]*)?$/)) return name
        if (path ~ /^usr\/local\/lib\/python3[^\/]*\/dist-packages\// && split(path, parts, "/") && ("usr/lib/python3/dist-packages/" parts[6]) in listed)
            return parts[6]
    }
    END {
        for (path in listed)
            if (path ~ /^usr\/lib(32|64|x32)?\/([^\/]*-linux-gnu[^\/]*\/)?[^\/]+\.so(\.[^\/]*)?$/) { name = path; sub(/^.*\//, "", name); library[name] = 1 }
        code = "^usr/local/(lib/python3[^/]*/dist-packages|(lib|share)/([^/]+/)?perl[^/]*|lib/site_perl|lib/site_ruby|(lib|share)/lua|share/nodejs|lib/nodejs|share/php|lib/php|lib/R|share/guile|share/tcltk)/" \
            "|^etc/(perl|python3[^/]*|gdb|lua|emacs/site-start\\.d|vim)/" \
            "|(^|/)(\\.local/lib/python3[^/]*/site-packages|\\.node_modules|\\.node_libraries)/"
        for (path in there) {
            if (there[path] == "d") continue
            name = path; sub(/^.*\//, "", name); place = substr(path, 1, length(path) - length(name) - 1)
            programs += path ~ /^usr\/s?bin\// && path in listed
            if (place in first && (("usr/bin/" name) in there && end("usr/bin/" name) != end(path) || ("usr/sbin/" name) in there && end("usr/sbin/" name) != end(path)))
                print "/" path ": stands before the packaged " name
            if (path in declared && !(path in listed) && (first_of = before_packaged(path, place, name)))
                print "/" path ": stands before the packaged " first_of
            if (path in listed || path in declared || (path in link && brought(path))) continue
            if (why = reason(path, place, name)) print "/" path ": " why
        }
        print programs + 0 > (tree ".programs")
    }' "$folder/tree" "$folder/listed" "$folder/declared" "$folder/before" "$folder/linker" "$folder/cache" >> "$folder/found"
bad=$(sort -u "$folder/found" | PARAM_ALLOW="$PARAM_ALLOW
$PARAM_EXPECTED" refused)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(cat "$folder/tree.programs") packaged programs; nothing else stands before them, or lies where programs load code from"
