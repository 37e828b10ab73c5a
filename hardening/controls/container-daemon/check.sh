set -eu
cd "$ROOT"
[ -x usr/sbin/dockerd ] || [ -x usr/bin/dockerd ] || { echo "dockerd is not installed: nothing to look at"; exit 1; }
file=etc/docker/daemon.json
[ -f "$file" ] && [ ! -L "$file" ] || { echo "/$file is missing, or a link: Docker's own defaults hold"; exit 1; }
settings=$(tr -d ' \t\n' < "$file")

# says KEY VALUE: says so where the file sets the key otherwise, or twice.
says() {
    [ "$(printf '%s' "$settings" | grep -oF "\"$1\":" | wc -l)" -le 1 ] || echo "$1 is set twice in /$file"
    case $settings in *"\"$1\":$2"[,}]*) ;; *) echo "$1 is not $2 in /$file" ;; esac
}

bad=$(
    if [ "$LIVE" = 1 ]; then
        active docker.service
        answer=$(docker info --format '{{.LiveRestoreEnabled}} {{.LoggingDriver}} {{.SecurityOptions}}' 2>&1) || true
        case $answer in true\ local\ *no-new-privileges*) ;; *) echo "the running daemon says: $answer" ;; esac
        icc=$(docker network inspect --format '{{index .Options "com.docker.network.bridge.enable_icc"}}' bridge 2>&1) || true
        [ "$icc" = false ] || echo "containers reach each other through the default bridge: $icc"
        exit 0
    fi
    says icc false
    says live-restore true
    says no-new-privileges true
    says userland-proxy false
    says log-driver '"local"'
    says max-size "\"$PARAM_LOG_SIZE\""
    says default-ulimits '{"core":{"Name":"core","Hard":0,"Soft":0}}'
    if [ "$PARAM_USERNS_REMAP" != off ]; then says userns-remap "\"$PARAM_USERNS_REMAP\""; fi
    for key in hosts insecure-registries iptables ip6tables seccomp-profile tls tlsverify; do
        case $settings in *"\"$key\":"*) echo "$key is set in /$file" ;; esac
    done
    if [ -f etc/default/docker ]; then grep -nE '^[ \t]*(export[ \t]+)?DOCKER_OPTS=' etc/default/docker | sed 's,^,more options in /etc/default/docker: ,' || true; fi
    start=$(setting system/docker.service Service ExecStart)
    case $start in
        *dockerd' -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS') ;;
        *) echo "systemd/system/docker.service starts ${start:-nothing}" ;;
    esac
    listens=$(systemd-analyze cat-config --root="$ROOT" systemd/system/docker.socket | sed -n 's/^[ \t]*Listen[A-Za-z]*[ \t]*=[ \t]*//p')
    [ "$listens" = /run/docker.sock ] || [ "$listens" = /var/run/docker.sock ] || echo "docker.socket listens on ${listens:-nothing}"
    expect system/docker.socket Socket SocketMode 0660
    members=$(awk -F: '$1 == "docker" {print $4}' etc/group)
    [ -z "$members" ] || echo "as good as root, by group docker: $members"
    enabled docker.service
    # networkd would take a container's interface out of its bridge, or the bridge's address away: these are Docker's own.
    managed veth1a2b3c4/ether/veth docker0/bridge/bridge br-1a2b3c4d5e6f/bridge/bridge |
        sed "s/$/, which is Docker's: Kind=!* in its [Match] leaves it alone/"
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "dockerd listens on its socket alone and keeps containers apart; user namespaces: $PARAM_USERNS_REMAP"
