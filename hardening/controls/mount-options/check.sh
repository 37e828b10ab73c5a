set -eu
cd "$ROOT"
may_run() { printf '%s\n' "$PARAM_EXECUTABLE" | grep -qx "$1"; }

# lacks FOLDER OPTIONS: says which of the options that the folder needs are not among these.
lacks() {
    needed="nosuid nodev"
    [ "$1" = /home ] || may_run "$1" || needed="$needed noexec"
    all=",$2,"
    for option in $needed; do
        # Of two that contradict each other the last counts.
        case ",${all##*,"${option#no}",}" in *",$option,"*) ;; *) echo "$1 is mounted without $option (${2:-not at all})" ;; esac
    done
}

bad=$(
    for folder in /tmp /var/tmp /dev/shm /home; do
        unit=$(printf %s "${folder#/}" | tr / -).mount
        if [ "$LIVE" = 1 ]; then
            lacks "$folder" "$(findmnt -n -o OPTIONS -M "$folder" | tail -n 1)"
        elif [ "$folder" = /dev/shm ]; then
            lacks "$folder" "$(awk '$1 !~ /^#/ && $2 ~ "^/+dev/+shm/*$" {options = $4} END {print options}' etc/fstab)"
        else
            enabled "$unit"
            lacks "$folder" "$(setting "system/$unit" Mount Options)"
        fi
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "/tmp, /var/tmp, /dev/shm and /home are mounted with the options that they need"
