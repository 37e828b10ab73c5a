set -eu
cd "$ROOT"
for file in etc/passwd etc/group; do
    [ -s "$file" ] && [ ! -L "$file" ] || { echo "/$file is missing: nothing to look at"; exit 1; }
done
bad=$(find . -xdev -path ./dev -prune -o -printf '%U %G /%P\n' | awk '
    FILENAME == "etc/passwd" {split($0, f, ":"); users[f[3]] = 1; next}
    FILENAME == "etc/group" {split($0, f, ":"); groups[f[3]] = 1; next}
    {path = $0; sub(/^[0-9]+ [0-9]+ /, "", path)}
    !($1 in users) {print path ": no account has number " $1; next}
    !($2 in groups) {print path ": no group has number " $2}' etc/passwd etc/group -)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(find . -xdev | wc -l) paths belong to the accounts and groups of /etc/passwd and /etc/group"
