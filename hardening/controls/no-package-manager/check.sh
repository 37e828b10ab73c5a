set -eu
files=$(find "$ROOT" -xdev ! -type d | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
found=$(find "$ROOT" -xdev ! -type d \( -name apt -o -name apt-get -o -name aptitude -o -name dpkg -o -name rpm -o -name dnf \
    -o -name microdnf -o -name yum -o -name apk -o -name pacman -o -name pip -o -name 'pip3*' -o -name npm -o -name yarn \
    -o -name gem -o -name brew \) \( -perm /0111 -o -type l \) -printf '/%P\n' | sort)
lists=$(find "$ROOT/var/lib/apt/lists" "$ROOT/var/cache/apt" -xdev -type f -printf '/%P\n' 2>/dev/null || true)
if [ -n "$found$lists" ]; then
    printf 'package managers and their lists:\n%s\n' "$found$lists"
    exit 1
fi
echo "$files files, no package manager among them"
