# Empties the caches of apt, pip and npm; the folders themselves belong to packages and stay.
set -eu
cd "$ROOT"
for folder in var/lib/apt/lists var/cache/apt; do
    [ -d "$folder" ] && [ ! -L "$folder" ] || continue
    find "$folder" -xdev ! -type d -exec rm -f -- {} +
done
rm -rf -- root/.cache root/.npm home/*/.cache home/*/.npm
