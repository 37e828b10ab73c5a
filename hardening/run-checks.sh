# run-checks.sh CHECKS ROOT LANES SECONDS: runs each script N.sh of the folder CHECKS on the filesystem ROOT, LANES at a
# time and each for SECONDS at most; N.out, N.err and N.status of the working folder keep what it says. It is shut in
# already (confined.py). Each script also gets processes and mounts of its own, in which nothing of the others can be
# reached, only an empty working folder, its $TMPDIR, is writable, and no capability but to read files of every owner is
# left.
set -eu

if [ $# = 5 ]; then # CHECKS ROOT LANES SECONDS NAME: in namespaces of its own
    trap 'exit 125' EXIT # whatever fails here is no answer of the check
    mount -t proc -o ro,nosuid,nodev,noexec proc /proc
    mount -t tmpfs -o size=256m,nosuid,nodev,mode=0700 tmpfs "$PWD"
    cd "$PWD"
    exec timeout --kill-after=5 "$4" setpriv --bounding-set=-all,+dac_override --inh-caps=-all sh "$1/$5.sh"
fi
mount --no-mtab -o remount,bind,ro,nosuid,nodev /
find "$1" -name '*.sh' -printf '%f\0' | xargs -r -0 -n 1 -P "$3" sh -c '
    name=${5%.sh}
    unshare --mount --pid --fork --kill-child sh "$0" "$1" "$2" "$3" "$4" "$name" >"$name.out" 2>"$name.err" </dev/null
    echo $? >"$name.status"
' "$0" "$@"
