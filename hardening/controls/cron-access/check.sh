set -eu
cd "$ROOT"
[ -n "$(ls etc)" ] || { echo "/etc is empty: nothing to look at"; exit 1; }
bad=$(
    for file in etc/cron.allow etc/at.allow; do
        if [ ! -f "$file" ] || [ -L "$file" ]; then
            echo "/$file is missing, so whoever /etc/${file#etc/} does not stop may plan jobs"
            continue
        fi
        [ "$(cat "$file")" = root ] || echo "/$file names others than root"
        [ -z "$(find "$file" \( ! -uid 0 -o ! -gid 0 -o -perm /0137 \))" ] || echo "/$file has mode and owner $(stat -c '%a %u:%g' "$file")"
    done
    for file in etc/cron.deny etc/at.deny; do
        if [ -e "$file" ] || [ -L "$file" ]; then echo "/$file is not needed beside the list of those who may"; fi
    done
    find var/spool/cron -mindepth 2 -maxdepth 2 ! -type d \( -path '*/crontabs/*' ! -name root -o -path '*/atjobs/[!.]*' ! -uid 0 \) \
        -printf '/%p: a job of another account than root\n' 2>/dev/null || true
    for folder in etc/cron.d etc/cron.hourly etc/cron.daily etc/cron.weekly etc/cron.monthly etc/cron.yearly etc/crontab; do
        [ -e "$folder" ] || continue
        find "$folder" -maxdepth 0 \( ! -uid 0 -o ! -gid 0 -o -perm /0077 \) -printf '/%p has mode and owner %m %U:%G\n'
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "only root may plan jobs; $(ls -d etc/cron* | wc -l) files and folders of cron are root's alone"
