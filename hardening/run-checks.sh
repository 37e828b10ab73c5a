# run-checks.sh CHECKS ROOT LANES SECONDS: runs each script N.sh of the folder CHECKS on the filesystem ROOT, LANES at a
# time and each for SECONDS at most; N.out, N.err and N.status of the working folder keep what it says. It is shut in
# already (confined.py). The scripts see CHECKS at /checks and ROOT at /image. Each also gets processes and mounts of its
# own, in which nothing of the others can be reached, only an empty /tmp and /run are writable, and no capability but to
# read files of every owner is left.
set -eu

if [ $# = 2 ]; then # SECONDS NAME: in namespaces of its own
    trap 'exit 125' EXIT # whatever fails here is no answer of the check
    mount -t proc -o ro,nosuid,nodev,noexec proc /proc
    mount -t tmpfs -o size=256m,nosuid,nodev,mode=0700 tmpfs "$PWD" # over the answers of the others
    mount --bind "$PWD" /tmp
    mount -t tmpfs -o size=16m,nosuid,nodev,mode=0700 tmpfs /run
    cd /tmp
    exec timeout --kill-after=5 "$1" setpriv --bounding-set=-all,+dac_override --inh-caps=-all sh "/checks/$2.sh"
fi
mkdir /checks /image
mount --rbind "$1" /checks
mount --rbind "$2" /image
mount --no-mtab -o remount,bind,ro,nosuid,nodev /
find /checks -name '*.sh' -printf '%f\0' | xargs -r -0 -n 1 -P "$3" sh -c '
    name=${2%.sh}
    unshare --mount --pid --fork --kill-child sh "$0" "$1" "$name" >"$name.out" 2>"$name.err" </dev/null
    echo $? >"$name.status"
' "$0" "$4"
