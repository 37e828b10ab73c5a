#!/bin/sh
# Runs dockerd "$@" in a mount namespace of its own, so that whatever it mounts goes with it.
# Prepares the control groups where a container or a chroot lacks them. A dockerd that is killed starts again at once, as
# the ports that its containers publish are closed meanwhile.
set -eu
groups=/sys/fs/cgroup

if [ ! -e $groups/cgroup.controllers ] && [ -z "$(ls $groups)" ]; then # a bare /sys: mount what the kernel uses
    if grep -qv '^0::' /proc/self/cgroup; then
        mount -t tmpfs -o mode=755 cgroup $groups
        while IFS=: read -r _ names _; do
            [ -n "$names" ] || continue
            mkdir -p "$groups/${names#name=}"
            mount -t cgroup -o "$names" cgroup "$groups/${names#name=}"
        done </proc/self/cgroup
    else
        mount -t cgroup2 cgroup2 $groups
    fi
fi

# Version 2, and the root seen here is not the kernel's own (a container): a group that hands controllers to its children
# may hold no process itself (cgroups(7), "no internal processes"), so those in it move into a child first.
if [ -e $groups/cgroup.type ] && [ -w $groups/cgroup.procs ]; then
    mkdir -p $groups/goldsmith-host
    while read -r process; do
        echo "$process" >$groups/goldsmith-host/cgroup.procs 2>/dev/null || :
    done <$groups/cgroup.procs
    sed -e 's/ / +/g' -e 's/^/+/' $groups/cgroup.controllers >$groups/cgroup.subtree_control || :
fi

# Collecting garbage takes a fifth of the time of dockerd and containerd while they build; shims set their own pace.
export GOGC=400 GOMEMLIMIT=1GiB
stopping=
trap 'stopping=1; kill "$engine"' TERM
while :; do
    setpriv --pdeathsig KILL dockerd "$@" &
    engine=$! status=0
    wait "$engine" || status=$?
    while kill -0 "$engine" 2>/dev/null; do wait "$engine" || :; done # a trap ends only the first wait
    [ -z "$stopping" ] && [ "$status" -gt 128 ] || exit "$status"
    echo "dockerd ended with status $status, and starts again"
    sleep 1
done
