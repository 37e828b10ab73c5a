set -eu
cd "$ROOT"
servers=$(printf '%s' "$PARAM_SERVERS" | tr '\n' ' ')
[ -n "$servers" ] || { echo "no servers are named: nothing to look at"; exit 1; }
bad=$(
    expect timesyncd.conf Time NTP "$servers"
    expect timesyncd.conf Time FallbackNTP "$servers"
    # What networks bring is asked besides; a machine that was made may be told its own.
    [ "$LIVE" = 1 ] || grep -rsE '^[[:space:]]*NTP[[:space:]]*=' etc/systemd/network usr/local/lib/systemd/network | while IFS= read -r line; do
        for server in ${line#*=}; do
            case " $servers " in *" $server "*) ;; *) echo "/${line%%:*}: the clock is kept from $server, too" ;; esac
        done
    done
    comes_up systemd-timesyncd.service
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
