set -eu
cd "$ROOT"
for folder in tmp var/tmp; do
    if [ ! -d "$folder" ] || [ -L "$folder" ]; then
        echo "/$folder is missing, or a link"
        exit 1
    fi
    state=$(stat -c '%a %u' "$folder")
    [ "$state" = "1777 0" ] || { echo "/$folder has mode and owner $state, not 1777 0"; exit 1; }
done
echo "/tmp and /var/tmp have mode 1777 and belong to root"
