# Removes jobs; the programs themselves are a package to leave out of the definition.
set -eu
cd "$ROOT"
for folder in etc/cron.d etc/cron.hourly etc/cron.daily etc/cron.weekly etc/cron.monthly etc/cron.yearly var/spool/cron; do
    [ -d "$folder" ] && [ ! -L "$folder" ] || continue
    find "$folder" -xdev ! -type d -exec rm -f -- {} +
done
rm -f -- etc/crontab etc/anacrontab
