# Every rule that lets something in must be one of the reviewed ones; what the table must say besides is asked for.
set -eu
cd "$ROOT"
[ -x usr/sbin/nft ] || { echo "nft is not installed: no firewall"; exit 1; }

if [ "$LIVE" = 1 ]; then
    rules=$(nft list table inet filter 2>&1) || { echo "no table inet filter is loaded: $rules"; exit 1; }
else
    [ -f etc/nftables.conf ] && [ ! -L etc/nftables.conf ] || { echo "/etc/nftables.conf is missing, or a link: no firewall"; exit 1; }
    rules=$(cat etc/nftables.conf)
fi

bad=$(
    printf '%s\n' "$rules" | PORTS=$PARAM_PORTS OPENINGS=$PARAM_OPENINGS \
        OUTPUT_PORTS=$PARAM_OUTPUT_PORTS OUTPUT_OPENINGS=$PARAM_OUTPUT_OPENINGS FORWARD=$PARAM_FORWARD OUTPUT=$PARAM_OUTPUT awk '
        function allowed(list, name,    i, n, port) {  # `tcp dport 22 accept` for 22/tcp
            n = split(list, port, "\n")
            for (i = 1; i <= n; i++) { split(port[i], part, "/"); if (name == part[2] " dport " part[1] " accept") return 1 }
            return 0
        }
        function opened(list, side, name,    i, n, one, part, address) {  # `ip saddr 10.1.0.0/24 tcp dport 22 accept` for 22/tcp from 10.1.0.0/24
            n = split(list, one, "\n")
            for (i = 1; i <= n; i++) {
                split(one[i], part, "[ /]")
                address = one[i]; sub(/^[^ ]* [a-z]+ /, "", address)
                if (name == (address ~ /:/ ? "ip6 " : "ip ") side " " address " " part[2] " dport " part[1] " accept") return 1
            }
            return 0
        }
        function passes(rule) {  # what stands in quotes is a name or a text
            gsub(/"[^"]*"/, "", rule)
            return rule ~ /accept|map|jump|goto|return|queue/
        }
        function reviewed(rule,    i, n, name) {
            if (rule ~ /^ct state (established,related|related,established) accept$/) return 1
            if (chain == "input") {
                if (rule == "iif \"lo\" accept" || allowed(ENVIRON["PORTS"], rule)) return 1
                if (opened(ENVIRON["OPENINGS"], "saddr", rule)) return 1
                if (rule ~ /^icmp(v6)? type \{ [a-z, -]+ \} (limit rate [0-9]+\/second (burst [0-9]+ packets )?)?accept$/) return 1
                if (rule == "udp sport 67 udp dport 68 accept") return 1
                if (rule == "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept") return 1
            }
            if (chain == "forward") {
                n = split(ENVIRON["FORWARD"], name, "\n")
                for (i = 1; i <= n; i++)
                    if (rule == "iifname \"" name[i] "\" accept" || rule == "oifname \"" name[i] "\" ct status dnat accept") return 1
            }
            if (chain == "output")
                return ENVIRON["OUTPUT"] == "accept" || rule == "oif \"lo\" accept" || rule ~ /^meta l4proto \{ (icmp|ipv6-icmp), (icmp|ipv6-icmp) \} accept$/ || allowed(ENVIRON["OUTPUT_PORTS"], rule) || opened(ENVIRON["OUTPUT_OPENINGS"], "daddr", rule)
            return 0
        }
        { sub(/^[ \t]+/, ""); sub(/[ \t]+$/, ""); sub(/ # handle [0-9]+$/, "") }
        /^#/ || /^$/ { next }
        depth == 0 && (/^table inet filter$/ || /^delete table inet filter$/) && !tables { next }
        depth == 0 && /^table inet filter \{$/ { depth = 1; tables++; next }
        depth == 1 && /^chain [a-z]+ \{$/ { depth = 2; chain = $2; seen[chain]++; next }
        depth == 1 && /^\}$/ { depth = 0; next }
        depth == 2 && /^\}$/ { depth = 1; chain = ""; next }
        depth == 2 && /^type filter hook [a-z]+ priority (filter|0); policy [a-z]+;$/ && $4 == chain { policy[chain] = $8; next }
        depth == 2 && /( drop|^counter( packets [0-9]+ bytes [0-9]+)?)$/ && !/[;#]/ && !passes($0) { next }
        depth == 2 && !/[;]/ && reviewed($0) { next }
        { print "not a reviewed rule" (chain ? " of " chain : "") ": " $0 }
        END {
            if (tables != 1) print "there are " tables + 0 " tables inet filter, not one"
            n = split("input forward output", names, " ")
            for (i = 1; i <= n; i++) {
                want = names[i] == "output" ? ENVIRON["OUTPUT"] ";" : "drop;"
                if (seen[names[i]] != 1 || policy[names[i]] != want) print "chain " names[i] ": policy is " (policy[names[i]] ? policy[names[i]] : "not given;") " not " want
            }
        }' | sed 's/;$//'
    if [ "$LIVE" = 1 ]; then
        active nftables.service
        exit 0
    fi
    comes_up nftables.service
    expect system/nftables.service Service ExecStart "/usr/sbin/nft -f /etc/nftables.conf"
    expect system/nftables.service Service ExecStartPost ""
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "input and forwarding are dropped but for: $(printf '%s ' $PARAM_PORTS)$(printf '%s\n' "$PARAM_OPENINGS" | paste -sd, -)"
