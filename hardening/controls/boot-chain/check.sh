set -eu
cd "$ROOT"
[ -d boot ] && [ ! -L boot ] || { echo "/boot is missing, or a link: nothing to look at"; exit 1; }
kernels=$(ls usr/lib/modules 2>/dev/null | wc -l)
[ "$kernels" -gt 0 ] || { echo "no kernel in /usr/lib/modules: nothing to look at"; exit 1; }
bad=$(
    for loader in usr/sbin/grub-install usr/sbin/grub-mkconfig boot/grub etc/default/grub usr/bin/syslinux usr/bin/extlinux usr/sbin/lilo; do
        if [ -e "$loader" ] || [ -L "$loader" ]; then echo "/$loader: a boot loader with a menu that can be edited"; fi
    done
    for folder in boot efi boot/efi; do
        config=$folder/loader/loader.conf
        if [ -f "$config" ]; then
            editor=$(awk '$1 == "editor" {last = $2} END {print last}' "$config")
            case $editor in no | 0 | false | off) ;; *) echo "/$config: the menu's editor is ${editor:-on by default}" ;; esac
        fi
        if [ -d "$folder/loader/entries" ]; then find "$folder/loader/entries" -name '*.conf' -printf '/%p: an entry besides the one file\n'; fi
    done
    find boot -xdev -type f -perm /0077 -printf '/%p has mode %m: others may read it\n'
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$kernels kernel, no boot loader with a menu, and /boot is root's alone"
