# LIVE=1 asks the engine how its containers run, and the kernel as whom. An image brings no containers along.
set -eu
cd "$ROOT"
[ -x usr/sbin/dockerd ] || [ -x usr/bin/dockerd ] || { echo "dockerd is not installed: nothing to look at"; exit 1; }
if [ "$LIVE" = 0 ]; then
    bad=$(find var/lib/docker -mindepth 2 -maxdepth 3 -path '*/containers/*' -type d -printf '/%p: a container comes with the image\n' 2>/dev/null || true)
    [ -z "$bad" ] || { echo "$bad"; exit 1; }
    echo "no container comes with the image"
    exit 0
fi

# Names have no spaces; what else a container's owner chooses is JSON in one line, last, in which no quote stands alone.
format='{{.Name}} {{.State.Pid}} {{.HostConfig.Privileged}} {{json .HostConfig.NetworkMode}} {{json .HostConfig.PidMode}} {{json .HostConfig.IpcMode}} {{json .HostConfig.UTSMode}} {{json .HostConfig.UsernsMode}} {{json .HostConfig.SecurityOpt}} {{json .Mounts}}'
containers=$(docker ps --quiet --no-trunc 2>&1) || {
    echo "Docker did not answer, so that how containers run is not known: $containers"
    echo "journalctl -u docker says why; systemctl start docker starts it"
    exit 1
}
count=0
bad=''
for id in $containers; do
    count=$((count + 1))
    shown=$(docker inspect --type container --format "$format" "$id" 2>&1) || { bad="$bad$id cannot be looked at: $shown
"; continue; }
    name=${shown%% *} rest=${shown#* }
    name=${name#/} pid=${rest%% *}
    ! printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "$name" || continue
    uid=$(awk '/^Uid:/ {print $2}' "/proc/$pid/status" 2>/dev/null) || uid=''
    found=$(
        case $uid in 0) echo "is root on this host" ;; '') echo "has no process here that could be asked: pid $pid" ;; esac
        set -f
        set -- $rest
        [ "$2" = false ] || echo "is privileged"
        for shared in network:"$3" pid:"$4" ipc:"$5" uts:"$6"; do
            [ "${shared#*:}" != '"host"' ] || echo "shares the host's namespace of ${shared%%:*}"
        done
        [ "$7" != '"host"' ] || echo "is taken out of its user namespace"
        case $shown in *'"seccomp=unconfined"'* | *'"seccomp:unconfined"'*) echo "is not filtered (seccomp)" ;; esac
        case $shown in *'"apparmor=unconfined"'* | *'"apparmor:unconfined"'*) echo "is not confined (AppArmor)" ;; esac
        printf '%s' "$shown" | grep -oE '[{,]"Source":"([^"]*/(docker|containerd|podman|crio)\.sock|/run/?|/var/run/?|/)"' |
            sed 's/^.*:"/has the engine'"'"'s socket: /; s/"$//' || true
    )
    [ -z "$found" ] || bad="$bad$(printf '%s\n' "$found" | sed "s/^/$name /")
"
done
if [ -n "$bad" ]; then
    printf '%s' "$bad"
    exit 1
fi
echo "$count containers run, none of them as root on this host"
