# LIVE=1 looks at the sockets, which are there only while the engine runs.
set -eu
cd "$ROOT"
[ -x usr/sbin/dockerd ] || [ -x usr/bin/dockerd ] || { echo "dockerd is not installed: nothing to look at"; exit 1; }
group=$(awk -F: '$1 == "docker" {print $3}' etc/group)

# held MODE GROUP PATH …: says which of the paths is a link, is not root's, or has more rights than MODE.
held() {
    mode=$1 owner=$2
    shift 2
    for path; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        find "$path" -maxdepth 0 \( -type l -o ! -uid 0 -o ! -gid "$owner" -o -perm "/$(printf '%04o' $((07777 & ~0$mode)))" \) \
            -printf "/%p is %y with mode and owner %m %U:%G, not $mode 0:$owner\n"
    done
}

# named KEY: the file that daemon.json names by a key.
named() { sed -n "s/.*\"$1\"[ \t]*:[ \t]*\"\/\([^\"]*\)\".*/\1/p" etc/docker/daemon.json 2>/dev/null || true; }

if [ "$LIVE" = 1 ]; then
    [ -S run/docker.sock ] || { echo "/run/docker.sock is no socket"; exit 1; }
    bad=$(held 660 "${group:-0}" run/docker.sock; held 660 0 run/containerd/containerd.sock)
    [ -z "$bad" ] || { echo "$bad"; exit 1; }
    echo "the sockets of Docker and containerd are root's, and the group's that may ask Docker"
    exit 0
fi

bad=$(
    held 755 0 etc/docker etc/docker/certs.d etc/docker/tls
    held 644 0 etc/docker/daemon.json etc/default/docker etc/sysconfig/docker etc/containerd/config.toml
    for unit in docker.service docker.socket containerd.service; do
        held 644 0 "etc/systemd/system/$unit" "run/systemd/system/$unit" "usr/lib/systemd/system/$unit"
        for folder in "etc/systemd/system/$unit.d" "run/systemd/system/$unit.d" "usr/lib/systemd/system/$unit.d"; do
            [ ! -d "$folder" ] || { held 755 0 "$folder"; held 644 0 "$folder"/*; }
        done
    done
    if [ -d etc/docker/certs.d ]; then
        find etc/docker/certs.d -mindepth 1 -type d -exec find {} -maxdepth 0 \( ! -uid 0 -o ! -gid 0 -o -perm /7022 \) -printf '/%p has mode and owner %m %U:%G, not 755 0:0\n' \;
        find etc/docker/certs.d ! -type d ! -name '*.key' \( -type l -o ! -uid 0 -o ! -gid 0 -o -perm /7333 \) -printf '/%p has mode and owner %m %U:%G, not 444 0:0\n'
        find etc/docker/certs.d ! -type d -name '*.key' \( -type l -o ! -uid 0 -o ! -gid 0 -o -perm /7377 \) -printf '/%p has mode and owner %m %U:%G, not 400 0:0\n'
    fi
    held 444 0 $(named tlscacert) $(named tlscert) etc/docker/tls/ca.pem etc/docker/tls/cert.pem
    held 400 0 $(named tlskey) etc/docker/tls/key.pem
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
units=$(ls etc/systemd/system/docker.* usr/lib/systemd/system/docker.* 2>/dev/null | wc -l)
[ "$units" -gt 0 ] && [ -d etc/docker ] || { echo "no unit of Docker, or no /etc/docker: nothing to look at"; exit 1; }
echo "$units units of Docker and all below /etc/docker are root's, and no key is for others to read"
