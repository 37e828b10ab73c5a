#!/bin/sh
# Removes from the filesystem at $ROOT what differs from day to day or is of no use in an image; EPOCH in seconds.
# Runs last, on the host (a tree's path) and inside a container (/), so with no more than sh, coreutils, sed and awk.
set -eu
base=${ROOT%/}
rm -rf "$base"/var/lib/apt/lists/* "$base"/var/cache/apt/* "$base"/var/cache/ldconfig/aux-cache \
    "$base"/var/cache/debconf/*-old "$base"/var/lib/dpkg/*-old "$base"/var/lib/dpkg/available \
    "$base"/var/lib/dpkg/lock* "$base"/var/lib/dpkg/triggers/Lock "$base"/var/lib/systemd/random-seed \
    "$base"/var/log/apt "$base"/var/lib/apt/lists/.[!.]* "$base"/var/lib/apt/periodic
# An empty log was put there for its owner and mode.
find "$base"/var/log -xdev -maxdepth 1 -name '*.log' -size +0 -delete 2>/dev/null || :
find "$base"/tmp "$base"/var/tmp -xdev -mindepth 1 -delete 2>/dev/null || :
if [ -f "$base"/etc/machine-id ]; then : >"$base"/etc/machine-id; fi

# The day of the last password change of each account says when the build was: it stays empty, no ageing.
for file in "$base"/etc/shadow "$base"/etc/shadow-; do
    if [ -f "$file" ]; then
        sed "s/^\([^:]*:[^:]*\):[0-9]*:/\1::/" "$file" >"$file.new"
        cat "$file.new" >"$file"
        rm -f "$file.new"
    fi
done

# apt writes this in the order of a hash table.
states="$base"/var/lib/apt/extended_states
if [ -f "$states" ]; then
    awk 'BEGIN { RS = "" } { gsub(/\n/, "\001"); print }' "$states" | LC_ALL=C sort | tr '\001' '\n' |
        sed 's/^Package:/\nPackage:/' | sed '1{/^$/d}' >"$states.new"
    cat "$states.new" >"$states"
    rm -f "$states.new"
fi
