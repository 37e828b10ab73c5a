set -eu
cd "$ROOT"
line='
'
may_run() { case "$line$PARAM_EXECUTABLE$line" in *"$line$1$line"*) ;; *) return 1 ;; esac; }

# mounted FOLDER: the options of what is mounted there, last; where it is a link, of what is mounted where that leads.
mounted() {
    options=''
    if [ -L "$1" ]; then set -- "$(readlink -f -- "$1")"; fi
    while read -r _ place _ all _; do [ "$place" != "$1" ] || options=$all; done </proc/self/mounts
    printf %s "$options"
}

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
        if [ "$LIVE" = 1 ]; then
            lacks "$folder" "$(mounted "$folder")"
        elif [ "$folder" = /dev/shm ]; then
            lacks "$folder" "$(awk '$1 !~ /^#/ && $2 ~ "^/+dev/+shm/*$" {options = $4} END {print options}' etc/fstab)"
        else
            unit=$(printf %s "${folder#/}" | tr / -).mount
            comes_up "$unit"
            lacks "$folder" "$(setting "system/$unit" Mount Options)"
        fi
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "/tmp, /var/tmp, /dev/shm and /home are mounted with the options that they need"
