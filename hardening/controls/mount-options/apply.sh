set -eu
cd "$ROOT"
options=nosuid,nodev,noexec
if printf '%s\n' "$PARAM_EXECUTABLE" | grep -qx /dev/shm; then options=nosuid,nodev; fi
line="tmpfs /dev/shm tmpfs rw,$options 0 0"
[ ! -L etc/fstab ] || { echo "/etc/fstab is a link" >&2; exit 1; }
[ -e etc/fstab ] || : > etc/fstab
if [ "$(awk '$2 == "/dev/shm"' etc/fstab)" != "$line" ]; then
    rest=$(awk '$2 != "/dev/shm"' etc/fstab)
    printf '%s\n%s\n' "$rest" "$line" > etc/fstab
fi
enable var-tmp.mount home.mount
