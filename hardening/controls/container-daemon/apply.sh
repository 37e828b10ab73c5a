set -eu
enable docker.service docker.socket
[ "$PARAM_USERNS_REMAP" = dockremap ] || exit 0
# By hand: tools for accounts would note today's date, and leave copies of the lists. Only what is missing is written.
cd "$ROOT"
if ! grep -q '^dockremap:' etc/passwd; then
    number=$(awk -F: '{ taken[$3] = 1 } END { for (n = 999; n >= 100; n--) if (!(n in taken)) { print n; exit } }' etc/passwd etc/group)
    append etc/passwd "dockremap:x:$number:$number:root of containers:/nonexistent:/usr/sbin/nologin"
    grep -q '^dockremap:' etc/group || append etc/group "dockremap:x:$number:"
    grep -q '^dockremap:' etc/shadow || append etc/shadow 'dockremap:!*::0:99999:7:::'
    [ ! -e etc/gshadow ] || grep -q '^dockremap:' etc/gshadow || append etc/gshadow 'dockremap:!::'
fi
for file in etc/subuid etc/subgid; do
    grep -qs '^dockremap:' $file || append $file dockremap:231072:65536
done
