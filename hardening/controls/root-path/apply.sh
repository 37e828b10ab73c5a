# Debian gives the group staff /usr/local; nobody is in it, and nothing needs it.
set -eu
cd "$ROOT"
for folder in usr/local/sbin usr/local/bin usr/sbin usr/bin; do
    [ -d "$folder" ] && [ ! -L "$folder" ] || continue
    find "$folder" -maxdepth 0 ! -uid 0 -exec chown 0 -- {} +
    find "$folder" -maxdepth 0 -perm /0022 -exec chmod go-w -- {} +
done
