set -eu
cd "$ROOT"
[ -d boot ] && [ ! -L boot ] || exit 0
find boot -xdev -type f -perm /0077 -exec chmod go-rwx -- {} +
