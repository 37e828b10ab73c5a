# Which interfaces systemd-networkd would manage, by the .network files of the tree: systemd.network(5).

# networks: the files that it reads, in its order: by name, and of one name that of the first folder alone.
networks() {
    for folder in etc run usr/local/lib usr/lib; do
        folder=$ROOT/$folder/systemd/network
        if [ -d "$folder" ]; then find "$folder" -maxdepth 1 -name '*.network' -printf '%f %p\n'; fi
    done | awk '!seen[$1]++' | LC_ALL=C sort -k 1,1 | cut -d ' ' -f 2-
}

# conditions FILE: `KEY GLOB…` for each key of its [Match] with all drop-ins, and `Unmanaged yes` where it says so.
# A `!` before a list holds for each of its words, and an empty value takes back what stood before.
conditions() {
    systemd-analyze cat-config --root="$ROOT" "systemd/network/${1##*/}" | awk '
        /^# \// { section = "" }
        /^[ \t]*([#;]|$)/ { next }
        { line = joined $0; joined = "" }
        sub(/\\$/, " ", line) { joined = line; next }
        line ~ /^[ \t]*\[/ { gsub(/[ \t]/, "", line); section = line; next }
        at = index(line, "=") {
            key = substr(line, 1, at - 1); gsub(/[ \t]/, "", key)
            value = substr(line, at + 1); gsub(/^[ \t]+|[ \t]+$/, "", value)
            if (section == "[Link]" && key == "Unmanaged") unmanaged = tolower(value) ~ /^(1|yes|y|true|t|on)$/
            if (section != "[Match]") next
            inverted = sub(/^!/, "", value) ? "!" : ""
            if (value == "") delete globs[key]
            count = split(value, word)
            for (i = 1; i <= count; i++) globs[key] = globs[key] " " inverted word[i]
        }
        END { for (key in globs) print key globs[key]; if (unmanaged) print "Unmanaged yes" }'
}

# fits VALUE GLOB…: no glob with a `!` fits the value, and one of the others if there are any. Nothing fits an empty one.
fits() {
    value=$1 wanted='' found=''
    shift
    for glob; do
        hit=''
        case $value in '') ;; ${glob#!}) hit=1 ;; esac
        case $glob in
            !*) [ -z "$hit" ] || return 1 ;;
            *) wanted=1 found=$found$hit ;;
        esac
    done
    [ -z "$wanted" ] || [ -n "$found" ]
}

# managed NAME/TYPE/KIND …: says which file makes networkd manage which of these interfaces, all made by software: the
# first that matches. What may hold on one machine and not on another is taken to hold, but hides no later file; so is a
# [Match] that names nothing, of which the manual says that it matches all, and networkd 257 that it is ignored.
managed() (
    set -f
    left=$*
    networks | while read -r file; do
        if [ "$(readlink "$file")" = /dev/null ] || { [ ! -L "$file" ] && [ ! -s "$file" ]; }; then continue; fi
        asked=$(conditions "$file")
        still=''
        for interface in $left; do
            name=${interface%%/*} kind=${interface##*/} type=${interface#*/}
            matches=1 known='' unknown='' unmanaged=''
            while read -r key globs; do
                case $key in
                    Name) fits "$name" $globs || matches='' ;;
                    Type) fits "${type%/*}" $globs || matches='' ;;
                    Kind | Driver) fits "$kind" $globs || matches='' ;;
                    Path | MACAddress | PermanentMACAddress | WLANInterfaceType | SSID | BSSID) fits '' $globs || matches='' ;;
                    Unmanaged) unmanaged=1 && continue ;;
                    *) unknown=1 ;;
                esac
                known=1
            done <<END
$asked
END
            if [ -n "$matches" ] && [ -z "$unmanaged" ]; then echo "${file#"$ROOT"} makes systemd-networkd manage $name"; fi
            if [ -z "$matches" ] || [ -n "$unknown" ] || [ -z "$known" ]; then still="$still $interface"; fi
        done
        left=$still
    done
)
