set -eu
cd "$ROOT"
[ -d etc/ssh ] && [ ! -L etc/ssh ] || exit 0
find etc/ssh -xdev ! -type l \( ! -uid 0 -o ! -gid 0 \) -exec chown 0:0 -- {} +
find etc/ssh -xdev -type d -perm /0022 -exec chmod go-w -- {} +
find etc/ssh -xdev -type f \( -name 'sshd_config' -o -path 'etc/ssh/sshd_config.d/*' -o -name 'ssh_host_*_key' \) \
    ! -perm 0600 -exec chmod 0600 -- {} +
find etc/ssh -xdev -type f -perm /0022 -exec chmod go-w -- {} +
