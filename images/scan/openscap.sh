# What oscap is run by, in a mount namespace of its own, which ends with it: PROC TREE PYTHON COMMAND….
# For it alone TREE gets what images/scan/boot_state.py laid out in PROC, where the kernel of the booted machine will have it.
# The file systems that the machine mounts at boot are mounted in an empty folder, ROOT, and its kernel's list of them is
# that of our parent, which has no other root: of a list that lies in no real /proc OpenSCAP believes nothing.
set -eu
if [ "$1" = inside ]; then
    proc=$2 tree=$3
    shift 3
    mkdir "$proc/$$"
    mv "$proc/environ" "$proc/$$/" # oscap reads its own environment under its process id, which is ours
    : >"$proc/mounts"
    mount --bind "$proc" "$tree/proc"
    mount --bind "/proc/$PPID/mounts" "$tree/proc/mounts"
    if [ -d "$tree/dev" ]; then # the kernel's own, with what is mounted below it
        mount -t tmpfs dev "$tree/dev"
        mkdir "$tree/dev/shm"
    fi
    exec "$@"
fi
proc=$1 tree=$2 python=$3 root=$1.root
shift 3
mkdir "$root"
mount --bind "$root" "$root"
while read -r folder options; do
    mkdir -p "$root$folder"
    mount -t tmpfs -o "$options" tmpfs "$root$folder"
done <"$proc/mounted"
exec "$python" -I "${0%/*}/rooted.py" "$root" sh "$0" inside "$proc" "$tree" "$@"
