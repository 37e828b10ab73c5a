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
        !/^[ \t]*#/ && tolower($3) == "core" && tolower($2) ~ /^(hard|-)$/ {last[$1] = $4}
        END {
            if (!("*" in last) || !("root" in last)) print "no limit of dumps for everyone, or for root"
            for (who in last) if (last[who] != "0") print "limits.conf or limits.d: " who " may dump " last[who]
        }'
    expect coredump.conf Coredump Storage none
    expect coredump.conf Coredump ProcessSizeMax 0
    expect system.conf Manager DefaultLimitCORE 0:0
    # The hard limit is the second number, or the only one; an empty value takes back what stood before.
    grep -rsnE '^[[:space:]]*LimitCORE[[:space:]]*=' etc/systemd/system usr/local/lib/systemd/system |
        sed -E '/LimitCORE[[:space:]]*=[[:space:]]*(0(:0)?)?[[:space:]]*$/d; s,^,/,'
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "no dumps: by login, by service, and none is stored"
