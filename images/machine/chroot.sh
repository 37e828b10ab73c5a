#!/bin/sh
# chroot.sh TREE DEBS COMMAND...: runs COMMAND with TREE as its root and DEBS at /run/goldsmith. What it mounts for that
# belongs to the namespace it runs in, and goes with it; of the host's devices there are only those that hold nothing.
set -eu
tree=$1
debs=$2
shift 2
mount -t tmpfs -o mode=0755 none "$tree/run"
mount -t tmpfs -o mode=1777 none "$tree/tmp"
mount -t tmpfs -o mode=0755 none "$tree/dev"
mount -t proc -o nosuid,nodev,noexec none "$tree/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec none "$tree/sys"
mknod -m 0666 "$tree/dev/null" c 1 3
mknod -m 0666 "$tree/dev/zero" c 1 5
mknod -m 0666 "$tree/dev/full" c 1 7
mknod -m 0666 "$tree/dev/random" c 1 8
mknod -m 0666 "$tree/dev/urandom" c 1 9
mknod -m 0666 "$tree/dev/tty" c 5 0
mkdir "$tree/dev/pts" "$tree/dev/shm" "$tree/run/goldsmith" "$tree/run/lock"
mount -t devpts -o newinstance,ptmxmode=0666 none "$tree/dev/pts"
mount --bind "$debs" "$tree/run/goldsmith"
ln -s pts/ptmx "$tree/dev/ptmx"
ln -s /proc/self/fd "$tree/dev/fd"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
unset TMPDIR # a directory of the host's
exec chroot "$tree" "$@"
