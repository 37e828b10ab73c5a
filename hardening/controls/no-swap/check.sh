# A device under /dev/mapper counts as encrypted where /etc/crypttab makes it, with a random key, as swap.
set -eu
cd "$ROOT"
random() {
    case $1 in /dev/mapper/*) ;; *) return 1 ;; esac
    [ -f etc/crypttab ] && awk -v name="${1#/dev/mapper/}" '
        $1 == name && $3 ~ /^\/dev\/u?random$/ && $4 ~ /(^|,)swap(,|$)/ {found = 1} END {exit !found}' etc/crypttab
}
seen=$(
    if [ "$LIVE" = 1 ]; then
        awk 'NR > 1 {  # a device of /dev/mapper stands there by its number
            if ($1 ~ /^\/dev\/dm-[0-9]+$/ && (getline name < ("/sys/block/" substr($1, 6) "/dm/name")) > 0)
                $1 = "/dev/mapper/" name
            print $1, "in use"
        }' /proc/swaps
    else
        if [ -f etc/fstab ]; then awk '!/^[ \t]*#/ && $3 == "swap" {print $1, "in /etc/fstab"}' etc/fstab; fi
        for folder in etc/systemd/system usr/local/lib/systemd/system usr/lib/systemd/system; do
            [ ! -d "$folder" ] || find "$folder" -maxdepth 1 -name '*.swap' -type f | while read -r unit; do
                awk -F= -v unit="$unit" '$1 == "What" {print $2, "in /" unit}' "$unit"
            done
        done
        for file in etc/systemd/zram-generator.conf usr/lib/systemd/zram-generator.conf swapfile swap.img; do
            if [ -s "$file" ]; then echo "/$file is there"; fi
        done
    fi
)
bad=$(
    printf '%s\n' "$seen" | while read -r device where; do
        [ -z "$device" ] || random "$device" || echo "swap on $device $where"
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
[ -n "$(ls etc)" ] || { echo "/etc is empty: nothing to look at"; exit 1; }
echo "swap: ${seen:-none}"
