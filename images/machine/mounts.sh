#!/bin/sh
# mounts.sh TREE DEBS COMMAND...: runs COMMAND, what it prints as errors, with DEBS at TREE/run/goldsmith and in TREE what
# programs need besides its files. It runs shut in, and what it mounts is gone with it: /proc and the devices are those
# that it has itself, read-only, since root may write to some files of /proc/sys without any capability.
set -eu
tree=$1
debs=$2
shift 2
mount -t tmpfs -o mode=0755 none "$tree/run"
mount -t tmpfs -o mode=1777 none "$tree/tmp"
mount -t tmpfs -o mode=0755 none "$tree/dev"
mount --bind /proc "$tree/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec none "$tree/sys"
for device in /dev/*; do
    : >"$tree$device"
    mount --bind "$device" "$tree$device"
done
mkdir "$tree/dev/pts" "$tree/dev/shm" "$tree/run/goldsmith" "$tree/run/lock"
mount -t devpts -o newinstance,ptmxmode=0666 none "$tree/dev/pts"
mount --bind "$debs" "$tree/run/goldsmith"
ln -s pts/ptmx "$tree/dev/ptmx"
ln -s /proc/self/fd "$tree/dev/fd"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
unset TMPDIR ROOT # folders of the host
exec "$@" >&2
