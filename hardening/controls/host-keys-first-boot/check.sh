set -eu
cd "$ROOT"
[ -e usr/sbin/sshd ] || { echo "no sshd in this image"; exit 2; }
keys=$(find etc/ssh -xdev -name 'ssh_host_*_key' ! -name '*.pub' -printf '/%p\n')
if [ "$LIVE" = 0 ]; then
    [ -z "$keys" ] || { printf 'baked into the image:\n%s\n' "$keys"; exit 1; }
    for key in $(sed -nE 's/^[[:space:]]*"?HostKey"?[[:space:]=]+"?([^"[:space:]]*).*/\1/Ip' etc/ssh/sshd_config etc/ssh/sshd_config.d/*.conf 2>/dev/null || true); do
        [ ! -e ".$key" ] && [ ! -L ".$key" ] || { printf 'baked into the image:\n%s\n' "$key"; exit 1; }
    done
    # A link to /dev/null or an empty file takes the place of the unit: sshd would not start.
    unit=usr/lib/systemd/system/ssh.service
    [ -s "$unit" ] || { echo "/$unit is missing: nothing to look at"; exit 1; }
    [ ! -e etc/systemd/system/ssh.service ] && [ ! -L etc/systemd/system/ssh.service ] ||
        { echo "/etc/systemd/system/ssh.service takes the place of sshd's unit"; exit 1; }
    steps=$(cat "$unit" etc/systemd/system/ssh.service.d/*.conf 2>/dev/null |
        awk 'sub(/^ExecStartPre=/, "") {if ($0 == "") steps = ""; else steps = steps $0 "\n"} END {printf "%s", steps}')
    first=$(printf '%s\n' "$steps" | head -n 1)
    wanted="in $(printf '%s' "$PARAM_TYPES" | tr '\n' ' '); do key=ssh_host_\$\${type}_key; [ -s \$\$key ] || { rm -f .\$\$key*; ssh-keygen -q -t \$\$type "
    case $first in
        "/bin/sh -c 'cd /etc/ssh; for type $wanted"*) ;;
        *) echo "before sshd runs ${first:-nothing}, which makes no keys of the kinds $(printf '%s' "$PARAM_TYPES" | tr '\n' ' ')"; exit 1 ;;
    esac
    [ -x usr/bin/ssh-keygen ] || { echo "/usr/bin/ssh-keygen is missing"; exit 1; }
    echo "no host key in the image; ssh.service makes those that are missing: $(printf '%s' "$PARAM_TYPES" | tr '\n' ' ')"
    exit 0
fi
[ -n "$keys" ] || { echo "the machine runs and has no host key"; exit 1; }
# Older than the machine's own identity means that somebody brought it. An update renews os-release, and a first boot may
# write machine-id after the keys, so a key must be older than both.
old=$(find etc/ssh -xdev -name 'ssh_host_*_key' ! -newer usr/lib/os-release ! -newer etc/machine-id -printf '/%p\n')
[ -z "$old" ] || { printf 'older than the image:\n%s\n' "$old"; exit 1; }
printf 'made on this machine:\n%s\n' "$keys"
