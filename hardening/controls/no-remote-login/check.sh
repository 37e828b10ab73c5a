set -eu
files=$(find "$ROOT" -xdev ! -type d | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
found=$(find "$ROOT" -xdev ! -type d \( -name sshd -o -name dropbear -o -name telnetd -o -name in.telnetd -o -name rlogind \
    -o -name in.rlogind -o -name rshd -o -name in.rshd -o -name vncserver -o -name Xvnc -o -name xrdp \) \
    \( -perm /0111 -o -type l \) -printf '/%P\n' | sort)
if [ -n "$found" ]; then
    printf 'servers for remote login:\n%s\n' "$found"
    exit 1
fi
echo "$files files, no server for remote login among them"
