set -eu
cd "$ROOT"
bad=$(
    for file in etc/issue etc/issue.net etc/motd; do
        if [ ! -f "$file" ] || [ -L "$file" ]; then
            echo "/$file is missing, or a link"
            continue
        fi
        [ "$(cat "$file")" = "$PARAM_TEXT" ] || echo "/$file does not hold the agreed text alone"
        [ "$(stat -c '%a %u:%g' "$file")" = "644 0:0" ] || echo "/$file has mode and owner $(stat -c '%a %u:%g' "$file")"
    done
    for folder in etc/issue.d run/issue.d usr/lib/issue.d etc/issue.net.d; do
        [ -d "$folder" ] || continue
        find "$folder" -mindepth 1 -name '*.issue' -printf '/%p is shown too\n'
    done
    if [ -d etc/update-motd.d ]; then
        find etc/update-motd.d -type f -perm /0111 -printf '/%p runs at every login and may tell the version\n'
    fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "/etc/issue, /etc/issue.net and /etc/motd hold the agreed text"
[ -e usr/sbin/sshd ] || exit 0
sshd_or_end
sshd_is banner none /etc/issue.net
sshd_end
