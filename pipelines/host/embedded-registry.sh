#!/bin/sh
# Become the registry `$1` with the configuration `$2`, in an environment where no REGISTRY_* outweighs that file. It
# ends when its configuration goes, as with a deleted state directory, or another file takes its place: else nobody
# could find it to stop it. Its guard (the loop) dies with it. Its collector of garbage (GOGC) took a third of its time.
set -eu
exec 3<"$2"
setpriv --pdeathsig KILL sh -c 'while [ /proc/self/fd/3 -ef "$2" ]; do sleep 1; done; kill "$1"' guard $$ "$2" &
exec env -i "PATH=$PATH" GOGC=400 "$1" serve "$2" 3<&-
