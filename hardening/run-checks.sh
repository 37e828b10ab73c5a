# run-checks.sh CHECKS ROOT LANES SECONDS PACKAGES: runs each script N.sh of the folder CHECKS on the filesystem ROOT, LANES
# at a time and each for SECONDS at most; N.out, N.err and N.status of the working folder keep what it says. It is shut in
# already (confined.py). The scripts see CHECKS at /checks and ROOT at /image. Each also gets processes and mounts of its
# own, in which nothing of the others can be reached, only an empty /tmp and /run are writable, and no capability but to
# read files of every owner is left. What the functions of the file PACKAGES find is made once, in /brought; where that
# fails, each check that asks for it finds it by itself.
set -eu

if [ $# = 2 ]; then # SECONDS NAME: in namespaces of its own
    trap 'exit 125' EXIT # whatever fails here is no answer of the check
    mount -t proc -o ro,nosuid,nodev,noexec proc /proc
    mount -t tmpfs -o size=256m,nosuid,nodev,mode=0700 tmpfs /tmp # over the answers of the others
    mount -t tmpfs -o size=16m,nosuid,nodev,mode=0700 tmpfs /run
    cd /tmp
    exec timeout --kill-after=5 "$1" setpriv --bounding-set=-all,+dac_override --inh-caps=-all sh "/checks/$2.sh"
fi
mkdir /checks /image /brought
mount -t tmpfs -o size=256m,nosuid,nodev,mode=0700 tmpfs /brought
cp "$0" /brought/self # which /tmp may cover later
mount --rbind "$1" /checks
mount --rbind "$2" /image
mount --no-mtab -o remount,bind,ro,nosuid,nodev /
(
    cd /image
    ROOT=/image DECLARED_FILES=/checks/DECLARED_FILES LC_ALL=C timeout --kill-after=5 "$4" sh -euc '
        . "$0"
        mkdir /brought/making
        brought_in /brought/making
        tree_in /brought/making > /brought/making/names
        mv /brought/making /brought/in' "$5" </dev/null >/dev/null 2>&1 || true
)
mount --move "$PWD" /tmp
cd /tmp
mount --no-mtab -o remount,ro /brought
find /checks -name '*.sh' -printf '%f\0' | xargs -r -0 -n 1 -P "$3" sh -c '
    name=${2%.sh}
    unshare --mount --pid --fork --kill-child sh "$0" "$1" "$name" >"$name.out" 2>"$name.err" </dev/null
    echo $? >"$name.status"
' /brought/self "$4"
