#!/bin/sh
# Removes from the machine's file system at $ROOT what must be made again on each machine, and what a build leaves behind.
# Runs after images/build/clean.sh, which takes away what containers must not hold either.
set -eu
base=${ROOT%/}
rm -f "$base"/etc/ssh/ssh_host_*_key "$base"/etc/ssh/ssh_host_*_key.pub "$base"/etc/hostname \
    "$base"/var/lib/systemd/credential.secret "$base"/var/lib/dbus/machine-id "$base"/root/.bash_history
rm -rf "$base"/var/lib/cloud/* "$base"/var/log/journal/* "$base"/var/cache/man/* "$base"/var/cache/apparmor/*
find "$base"/var/log -xdev -type f -size +0 -delete
find "$base"/dev "$base"/run -xdev -mindepth 1 -delete
# Empty, not absent: each machine makes its own at its first boot, and nothing asks who it shall be.
: >"$base"/etc/machine-id
