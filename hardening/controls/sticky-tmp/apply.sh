set -eu
cd "$ROOT"
for folder in tmp var/tmp; do
    mkdir -p "$folder"
    chmod 1777 "$folder"
    chown 0:0 "$folder"
done
