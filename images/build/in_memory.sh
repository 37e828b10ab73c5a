#!/bin/sh
# in_memory.sh ROOM TREE COMMAND...: runs COMMAND, which makes ROOM/tree, with a tmpfs at ROOM, then copies that to TREE.
# Where nothing may be mounted it works on disk. The mount belongs to the namespace this runs in, and goes with it.
set -eu
room=$1
tree=$2
shift 2
mount -t tmpfs -o mode=0755 none "$room" 2>/dev/null || :
"$@"
cp -a -- "$room/tree" "$tree"
