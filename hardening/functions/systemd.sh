# What systemd makes of its configuration in the tree, with every drop-in and mask, told by its own tools.

# setting FILE SECTION KEY: the value that counts at last, empty where none is set.
# FILE lies under systemd/, such as journald.conf or system/tmp.mount.
setting() {
    systemd-analyze cat-config --root="$ROOT" "systemd/$1" | awk -v section="[$2]" -v key="$3" '
        /^# \// { inside = 0 }
        /^[ \t]*\[/ { gsub(/[ \t]/, ""); inside = $0 == section; next }
        inside && at = index($0, "=") {
            name = substr($0, 1, at - 1); gsub(/[ \t]/, "", name)
            if (name != key) next
            value = substr($0, at + 1); gsub(/^[ \t]+|[ \t]+$/, "", value)
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

# active UNIT …: says which of the units does not run. Only in the booted machine.
active() {
    systemctl is-active "$@" 2>&1 | while read -r state; do
        [ "$state" = active ] || echo "$1 is $state"
        shift
    done
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
