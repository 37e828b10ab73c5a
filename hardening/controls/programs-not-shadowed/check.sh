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
        folder = path; sub(/\/[^\/]*$/, "", folder); libraries[folder] = 1
        if (!($0 ~ /^\// && brought(path)) && !(path in declared)) print "/" path ": a cache of libraries or a list of drivers names it, and no package brought it"
        next
    }
    function reason(path, place, name,    parts) {
        # What Python makes of a packaged module when its package is configured.
        if (place ~ /\/__pycache__$/ && name ~ /\.cpython-[0-9]+(\.opt-[12])?\.pyc$/ && split(name, parts, ".") &&
            (substr(place, 1, length(place) - 11) parts[1] ".py") in listed) return ""
        if (path ~ /^usr\// && path !~ /^usr\/(local|share|src)\// || path ~ /^(bin|sbin|lib|lib32|lib64|libx32)\//) return "no package brought it"
        if (path ~ /^usr\/share\/[^\/]+\// && (split(path, parts, "/") && "usr/share/" parts[3] in listed)) return "no package brought it"
        if (path ~ /^etc\/alternatives\//) return "leads to /" end(path) ", which no package brought"
        sub(levels, "", place)
        if (place in libraries && name ~ /\.so(\.|$)/) return "is a library that no package brought"
        if (path ~ /^etc\/ld\.so\.(cache|conf)$/ && path in link) return "is a link, and may name any library"
        if (path in link && is_folder(end(path)) && path ~ /^(usr\/local\/(lib|share)|etc)\/(perl|python|site_|lua|node|php|ruby|[^\/]*-linux-gnu)[^\/]*$/)
            return "leads to /" end(path) ", from where code is loaded"
        if (path ~ code) return "is loaded as code, and no package brought it"
    }
    # What a module of Perl, Node.js, Lua, Ruby or PHP is called, wherever it lies.
    function module(path,    place) {
        if (!match(path, /^(usr\/(local\/)?)?(etc|share|lib(\/[^\/]*-linux-gnu[^\/]*)?)\/(perl[^\/]*(\/[0-9.]+)?|site_perl|node(js|_modules)|lua\/[0-9.]+|ruby\/vendor_ruby|site_ruby|php)\//)) return ""
        place = substr(path, 1, RLENGTH); path = substr(path, RLENGTH + 1)
        if (place ~ /node/) { match(path, /^(@[^\/]*\/)?[^\/]*/); path = substr(path, 1, RLENGTH) }
        return path
    }
    # The packaged library or module in whose place the file is loaded.
    function before_packaged(path, place, name,    parts) {
        sub(levels, "", place)
        if (name in library && (place in libraries || place ~ /^usr\/lib(32|64|x32)?(\/[^\/]*-linux-gnu[^\/]*)?$/)) return name
        if (path ~ /^usr\/local\/lib\/python3[^\/]*\/dist-packages\// && split(path, parts, "/") && ("usr/lib/python3/dist-packages/" parts[6]) in listed)
            return parts[6]
        if ((name = module(path)) in modules) return name
    }
    END {
        for (path in listed) {
            if ((name = module(path)) != "") modules[name] = 1
            if (path ~ /^usr\/lib(32|64|x32)?\/([^\/]*-linux-gnu[^\/]*\/)?[^\/]+\.so(\.[^\/]*)?$/) { name = path; sub(/^.*\//, "", name); library[name] = 1 }
        }
        code = "^usr/local/(lib/python3[^/]*/dist-packages|(lib|share)/([^/]+/)?perl[^/]*|lib/site_perl|lib/site_ruby|(lib|share)/lua|share/nodejs|lib/nodejs|share/php|lib/php|lib/R|share/guile|share/tcltk)/" \
            "|^usr/share/node_modules/|^etc/(perl|python3[^/]*|gdb|lua|emacs/site-start\\.d|vim)/" \
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
# What no package brought: the loader of an ELF, and where it looks for libraries, are root's; byte code depends on its source.
find . -xdev -type f -size +63c ! -name '*[[:cntrl:]]*' -printf '%P\n' | sort | comm -23 - "$folder/listed" > "$folder/own"
xargs -r -d '\n' head -qc 64 -- < "$folder/own" | od -An -v -tu4 -w64 | paste - "$folder/own" > "$folder/heads"
{
    printf 'tmp\nvar/tmp\ndev/shm\nrun/lock\nrun/user\n'
    find . -xdev -mindepth 1 ! -type l ! -type c \( ! -uid 0 -o -perm -0002 -o -perm -0020 $(foreign 0) \) -printf '%P\n'
} > "$folder/open"
awk -v tree="$folder/tree" -v list="$folder/listed" -v open="$folder/open" "$follow"'
    BEGIN {
        for (i = 1; i < 256; i++) character[sprintf("%02x", i)] = sprintf("%c", i)
        kind[1] = kind[1879047931] = kind[1879047932] = kind[2147483645] = kind[2147483647] = "file" # needed, audits, filters
        kind[15] = kind[29] = "folders" # RPATH, RUNPATH
    }
    FILENAME == open { writable[$0] = 1; next }
    function unsafe(path) { for (; path != ""; sub(/(^|\/)[^\/]*$/, "", path)) if (path in writable) return path }
    function bytes(type, place, columns, all) { return "od -An -v -t" type " -w" columns " -j" place " -N" all " -- " quoted " 2>/dev/null" }
    function placed(address,    i) { for (i = 1; i <= loads; i++) if (address >= start[i] && address < start[i] + long[i]) return address - start[i] + offset[i]; return "none" }
    function note(place, its) { at[++names] = place; what[names] = its; if (names == 1 || place < low) low = place; if (names == 1 || place > high) high = place }
    function judge_names(    line, part, text, i, j) {
        line = ""
        if (names) { text = bytes("x1", low, high - low + 4096, high - low + 4096); text | getline line; close(text) }
        for (i = 1; i <= names; i++) {
            text = substr(line, 3 * (at[i] - low) + 1, 3 * 4096); j = index(text, " 00")
            split(j ? substr(text, 1, j) : text (text ? " 3a" : ""), part, " "); text = ""
            for (j = 1; j in part; j++) text = text character[part[j]]
            judge(text, what[i])
        }
        names = 0
    }
    function judge(text, its,    parts, i, count, to, where) {
        count = split(text, parts, ":")
        for (i = 1; i <= count; i++) {
            to = parts[i]
            if (its == "file" && to !~ /\//) continue
            gsub(/\$(ORIGIN|\{ORIGIN\})/, "/" place, to)
            where = to ~ /^\// ? unsafe(end(to)) : "tmp"
            # Who may write to the file itself gains nothing by its libraries.
            if (where ~ /^(tmp|var\/tmp|dev\/shm)$/ || where && !unsafe(path))
                print "/" path ": takes libraries from \"" parts[i] "\", where others than root may put theirs"
        }
    }
    { path = $0; sub(/^[^\t]*\t/, "", path); place = path; sub(/\/?[^\/]*$/, "", place) }
    $2 == 1 && path ~ /\/__pycache__\/[^\/]*\.pyc$/ { # the flags of byte code
        source = path; sub(/__pycache__\//, "", source); sub(/\.[^\/]*$/, ".py", source)
        if (path ~ /(^|\/)python3[^\/]*\// || source in listed) print "/" path ": is byte code that Python runs without a look at its source"
    }
    $1 == 1179403647 && int($2 / 256) % 256 == 1 { # ELF, the lowest byte first
        quoted = path; gsub(/\047/, "\047\\\047\047", quoted); quoted = "\047" quoted "\047"
        word = $2 % 256 == 2 ? 8 : 4; loads = dynamic = 0
        headers = bytes("u" word, word == 8 ? $9 + $10 * 4294967296 : $8, word == 8 ? 56 : 32, (word == 8 ? 56 * ($15 % 65536) : 32 * ($12 % 65536)))
        while ((headers | getline line) > 0) {
            split(line, part, " "); type = part[1] % 4294967296
            if (type == 1) { start[++loads] = part[3]; long[loads] = part[5]; offset[loads] = part[2] }
            if (type == 2) { dynamic = part[3]; size = part[5] }
            if (type == 3) note(part[2] + 0, "file")
        }
        close(headers)
        judge_names()
        if (!dynamic) next
        entries = bytes("u" word, placed(dynamic), 2 * word, size); count = 0
        while ((entries | getline line) > 0 && split(line, part, " ") && part[1] + 0) {
            if (part[1] in kind) { value[++count] = part[2]; tag[count] = part[1] }
            if (part[1] == 5) table = placed(part[2])
        }
        close(entries)
        for (i = 1; i <= count; i++) note(table + value[i], kind[tag[i]])
        judge_names()
    }' "$folder/tree" "$folder/listed" "$folder/open" "$folder/heads" >> "$folder/found"
bad=$(sort -u "$folder/found" | PARAM_ALLOW="$PARAM_ALLOW
$PARAM_EXPECTED" refused)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(cat "$folder/tree.programs") packaged programs; nothing else stands before them, or lies where programs load code from"
