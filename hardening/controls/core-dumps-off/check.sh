set -eu
cd "$ROOT"
if [ "$LIVE" = 1 ]; then
    limit=$(awk '/^Max core file size/ {print $6}' /proc/self/limits)
    [ "$limit" = 0 ] || { echo "a process that systemd starts may dump $limit"; exit 1; }
    echo "what systemd starts may dump $limit bytes"
    exit 0
fi
bad=$(
    # Of the lines for one account or group the last counts, and its own go before the wildcard, which does not hold for root.
    cat etc/security/limits.conf etc/security/limits.d/*.conf 2>/dev/null | awk '
        !/^[ \t]*#/ && $3 == "core" && $2 ~ /^(hard|-)$/ {last[$1] = $4}
        END {
            if (!("*" in last) || !("root" in last)) print "no limit of dumps for everyone, or for root"
            for (who in last) if (last[who] != "0") print "limits.conf or limits.d: " who " may dump " last[who]
        }'
    expect coredump.conf Coredump Storage none
    expect coredump.conf Coredump ProcessSizeMax 0
    expect system.conf Manager DefaultLimitCORE 0:0
    if [ -d etc/systemd/system ]; then
        grep -rnE '^[ \t]*LimitCORE[ \t]*=[ \t]*[^0 \t]' etc/systemd/system | sed 's,^,/,' || true
    fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "no dumps: by login, by service, and none is stored"
