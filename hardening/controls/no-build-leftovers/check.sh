# What is listed here differs from build to build.
set -eu
cd "$ROOT"
files=$(find . -xdev ! -type d | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
bad=$(
    [ ! -d var/log ] || [ -L var/log ] || find var/log -xdev -type f -size +0 -printf '/%p\n'
    for folder in tmp var/tmp var/cache/man var/cache/fontconfig; do
        [ -d "$folder" ] && [ ! -L "$folder" ] || continue
        find "$folder" -xdev -type f -printf "/$folder/%P\n"
    done
    for folder in tmp var/tmp; do
        [ -d "$folder" ] && [ ! -L "$folder" ] || continue
        find "$folder" -xdev -mindepth 1 ! -type f -printf "/$folder/%P\n"
    done
    for file in var/cache/ldconfig/aux-cache var/cache/debconf/*-old var/lib/dpkg/*-old \
        etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid- etc/.pwd.lock \
        var/lib/systemd/random-seed var/lib/urandom/random-seed \
        root/.bash_history root/.ash_history root/.python_history root/.node_repl_history root/.wget-hsts \
        root/.lesshst root/.viminfo; do
        if [ -e "$file" ] || [ -L "$file" ]; then echo "/$file"; fi
    done
    if [ -f etc/shadow ] && [ ! -L etc/shadow ]; then
        sed -n 's/^\([^:]*\):[^:]*:[^:][^:]*:.*/\/etc\/shadow: \1 carries the day of its last change/p' etc/shadow
    fi
)
if [ -n "$bad" ]; then
    printf 'left over from the build:\n%s\n' "$bad"
    exit 1
fi
echo "$files files looked at: no logs, seeds, backups, histories or dates of the build"
