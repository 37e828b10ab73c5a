# LIVE makes no difference to what is asked: in the booted machine there are host keys to look at.
set -eu
cd "$ROOT"
[ -d etc/ssh ] && [ ! -L etc/ssh ] || { echo "no /etc/ssh in this image"; exit 2; }
[ -f etc/ssh/sshd_config ] && [ ! -L etc/ssh/sshd_config ] || { echo "/etc/ssh/sshd_config is missing: nothing to look at"; exit 1; }
bad=$(
    find etc/ssh -xdev \( ! -uid 0 -o ! -gid 0 \) -printf '/%p belongs to %U:%G\n'
    find etc/ssh -xdev ! -type l -perm /0022 -printf '/%p has mode %m: others may write it\n'
    find etc/ssh -xdev -type f \( -name 'sshd_config' -o -path 'etc/ssh/sshd_config.d/*' -o -name 'ssh_host_*_key' \) \
        -perm /0077 -printf '/%p has mode %m, more open than 600\n'
    find etc/ssh/sshd_config* -xdev -type l -printf '/%p is a link\n'
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
keys=$(find etc/ssh -xdev -type f -name 'ssh_host_*_key' | wc -l)
[ "$LIVE" = 0 ] || [ "$keys" -gt 0 ] || { echo "the machine runs and has no host key"; exit 1; }
echo "$(find etc/ssh -xdev -type f | wc -l) files of ssh, $keys private keys among them: root's alone"
