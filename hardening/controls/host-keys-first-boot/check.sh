set -eu
cd "$ROOT"
[ -e usr/sbin/sshd ] || { echo "no sshd in this image"; exit 2; }
keys=$(find etc/ssh -xdev -name 'ssh_host_*_key' ! -name '*.pub' -printf '/%p\n')
if [ "$LIVE" = 0 ]; then
    [ -z "$keys" ] || { printf 'baked into the image:\n%s\n' "$keys"; exit 1; }
    # A link to /dev/null or an empty file takes the place of the unit: sshd would not start.
    unit=usr/lib/systemd/system/ssh.service
    [ -s "$unit" ] || { echo "/$unit is missing: nothing to look at"; exit 1; }
    [ ! -e etc/systemd/system/ssh.service ] && [ ! -L etc/systemd/system/ssh.service ] ||
        { echo "/etc/systemd/system/ssh.service takes the place of sshd's unit"; exit 1; }
    steps=$(cat "$unit" etc/systemd/system/ssh.service.d/*.conf 2>/dev/null |
        awk -F= '/^ExecStartPre=/ {if ($2 == "") steps = ""; else steps = steps $2 "\n"} END {printf "%s", steps}')
    first=$(printf '%s\n' "$steps" | head -n 1)
    [ "$first" = "/usr/bin/ssh-keygen -A" ] || { echo "before sshd runs ${first:-nothing}, not ssh-keygen -A"; exit 1; }
    [ -x usr/bin/ssh-keygen ] || { echo "/usr/bin/ssh-keygen is missing"; exit 1; }
    echo "no host key in the image; ssh.service runs: $(printf '%s' "$steps" | tr '\n' ';')"
    exit 0
fi
[ -n "$keys" ] || { echo "the machine runs and has no host key"; exit 1; }
# Older than the machine's own identity means that somebody brought it.
old=$(find etc/ssh -xdev -name 'ssh_host_*_key' ! -newer usr/lib/os-release -printf '/%p\n')
[ -z "$old" ] || { printf 'older than the image:\n%s\n' "$old"; exit 1; }
printf 'made on this machine:\n%s\n' "$keys"
