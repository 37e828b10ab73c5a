set -eu
cd "$ROOT"
servers=$(printf '%s' "$PARAM_SERVERS" | tr '\n' ' ')
[ -n "$servers" ] || { echo "no servers are named: nothing to look at"; exit 1; }
bad=$(
    expect timesyncd.conf Time NTP "$servers"
    expect timesyncd.conf Time FallbackNTP "$servers"
    enabled systemd-timesyncd.service
    for other in chronyd ntpd ntpsec openntpd; do
        if [ -e "usr/sbin/$other" ]; then echo "/usr/sbin/$other keeps the clock, too"; fi
    done
    if [ "$LIVE" = 1 ]; then active systemd-timesyncd.service; fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "systemd-timesyncd alone keeps the clock, from $servers"
