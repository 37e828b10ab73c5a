set -eu
cd "$ROOT"
for folder in tmp var/tmp; do
    [ -d "$folder" ] || mkdir -p "$folder"
    [ "$(stat -c '%a %u:%g' "$folder")" = "1777 0:0" ] || { chmod 1777 "$folder" && chown 0:0 "$folder"; }
done
