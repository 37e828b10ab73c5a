set -eu
enable docker.service docker.socket
[ "$PARAM_USERNS_REMAP" = dockremap ] || exit 0
# By hand: tools for accounts would note today's date, and leave copies of the lists. Only what is missing is written.
cd "$ROOT"
if ! grep -q '^dockremap:' etc/passwd; then
    number=$(awk -F: '{ taken[$3] = 1 } END { for (n = 999; n >= 100; n--) if (!(n in taken)) { print n; exit } }' etc/passwd etc/group)
    echo "dockremap:x:$number:$number:root of containers:/nonexistent:/usr/sbin/nologin" >> etc/passwd
    grep -q '^dockremap:' etc/group || echo "dockremap:x:$number:" >> etc/group
    grep -q '^dockremap:' etc/shadow || echo 'dockremap:!*::0:99999:7:::' >> etc/shadow
    [ ! -e etc/gshadow ] || grep -q '^dockremap:' etc/gshadow || echo 'dockremap:!::' >> etc/gshadow
fi
for file in etc/subuid etc/subgid; do
    grep -qs '^dockremap:' $file || echo dockremap:231072:65536 >> $file
done
