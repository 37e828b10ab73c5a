# What systemd makes of its configuration in the tree, with every drop-in and mask, told by its own tools.

# config_lines FILE: all of it and of its drop-ins, without comments, each continued line as one, and `# /PATH` before each file.
# FILE lies under systemd/, such as journald.conf or system/tmp.mount.
config_lines() {
    systemd-analyze cat-config --root="$ROOT" "systemd/$1" | awk '
        /^# \/[^ ]+\.[a-z]+$/ { if (joined != "") print joined "\\"; joined = ""; print; next }
        /^[ \t]*[#;]/ { next }
        { line = joined $0; joined = "" }
        sub(/\\$/, " ", line) { joined = line; next }
        { print line }
        END { if (joined != "") print joined }'
}

# setting FILE SECTION KEY: the value that counts at last, empty where none is set. What stands before the first section
# of a file counts nowhere; after a comment that looks like the name of a file it may, so that both values are told.
setting() {
    config_lines "$1" | awk -v section="[$2]" -v key="$3" '
        /^# \// { unsure = inside; next }
        /^[ \t]*\[/ { gsub(/[ \t]/, ""); inside = $0 == section; unsure = 0; next }
        inside && at = index($0, "=") {
            name = substr($0, 1, at - 1); gsub(/[ \t]/, "", name)
            if (name != key) next
            last = value
            value = substr($0, at + 1); gsub(/^[ \t]+|[ \t]+$/, "", value)
            if (unsure && value != last) value = value " or " last
        }
        END { print value }'
}

# expect FILE SECTION KEY VALUE: says what is set otherwise, and nothing where it is as it should be.
expect() {
    found=$(setting "$1" "$2" "$3")
    [ "$found" = "$4" ] || echo "systemd/$1: $3 is ${found:-set nowhere}, not $4"
}

# enabled UNIT: says so, of the files, where the unit does not start by itself.
enabled() {
    state=$(SYSTEMD_OFFLINE=1 systemctl --root="$ROOT" is-enabled "$1" 2>&1) || true
    case $state in enabled | static | alias) ;; *) echo "$1 is ${state##*: }" ;; esac
}

# comes_up UNIT: the same, also where a drop-in lets it start on a condition alone: it may be enabled and never run.
comes_up() {
    state=$(enabled "$1")
    [ -z "$state" ] || { echo "$state" && return; }
    config_lines "system/$1" | awk -v unit="$1" -v root="${ROOT%/}" '
        /^# \// { files++; file = substr($0, 3 + length(root)); next }
        files > 1 && /^[ \t]*(Condition|Assert)[A-Za-z]*[ \t]*=/ {
            kind = substr($1, 1, 6); gsub(/^[ \t]+|[ \t]+$/, "")
            if ($0 ~ /=$/) { delete found[kind]; next }
            found[kind] = found[kind] unit " starts only on a condition: " $0 " (" file ")\n"
        }
        END { printf "%s%s", found["Condit"], found["Assert"] }'
}

# answers UNIT …: `UNIT is STATE` of each, or why systemd does not say so of all. Only where it booted.
answers() {
    systemctl is-active "$@" 2>&1 | {
        while read -r state; do
            case $state in '' | *' '*) echo "systemd does not answer: ${state:-an empty line}" && exit ;; esac
            echo "${1-systemctl} is $state"
            [ $# = 0 ] || shift
        done
        [ $# = 0 ] || echo "systemd does not answer: it says nothing of $*"
    }
}

# active UNIT …: says which of the units does not run, or why systemd does not say so. Only where it booted.
active() {
    answers "$@" | sed '/ is active$/d'
}

# inactive UNIT …: says which of the units runs, or why systemd does not say so. Only where it booted. It lists what it has
# loaded under each unit's own name alone, so that it is asked again for those that are links.
inactive() {
    { systemctl list-units --all --full --plain --no-legend 2>&1 || echo "systemctl ended with $?"; } | UNITS=$* awk '
        BEGIN { count = split(ENVIRON["UNITS"], units, " "); for (i = 1; i <= count; i++) asked[units[i]] = 1 }
        $1 !~ /\.[a-z]+$/ || NF < 4 { print "systemd does not answer: " ($0 == "" ? "an empty line" : $0); exit }
        $1 in asked && $3 ~ /^(active|reloading|refreshing)$/ { print $1 " runs" }
        END { if (NR == 0) print "systemd does not answer: it says nothing of " ENVIRON["UNITS"] }'
    links=$(for unit; do
        for folder in etc/systemd/system run/systemd/system run/systemd/generator run/systemd/generator.early \
            run/systemd/generator.late usr/local/lib/systemd/system usr/lib/systemd/system; do
            [ ! -L "${ROOT%/}/$folder/$unit" ] || { echo "$unit" && break; }
        done
    done)
    [ -z "$links" ] || answers $links | sed -n -E -e '/^systemd does not answer/p' -e 's/ is (active|reloading|refreshing)$/ runs/p'
}

# enable UNIT …: makes units start by themselves, masked or not. Changes nothing where they do.
enable() {
    for unit; do
        if [ -n "$(enabled "$unit")" ]; then
            SYSTEMD_OFFLINE=1 systemctl --root="$ROOT" --quiet unmask "$unit"
            SYSTEMD_OFFLINE=1 systemctl --root="$ROOT" --quiet enable "$unit"
        fi
    done
}
