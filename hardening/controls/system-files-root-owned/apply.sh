set -eu
cd "$ROOT"
find usr etc -xdev ! -type l -perm -0020 -exec chmod g-w -- {} +
