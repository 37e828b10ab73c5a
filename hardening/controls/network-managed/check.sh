set -eu
cd "$ROOT"
others="networking NetworkManager connman dhcpcd wicked wpa_supplicant"
bad=$(
    if [ "$LIVE" = 1 ]; then
        active systemd-networkd.service systemd-resolved.service
        systemctl list-units --no-legend --plain --state=active $(printf '%s.service ' $others) | sed 's/ .*/ manages the network, too/'
        exit 0
    fi
    comes_up systemd-networkd.service
    comes_up systemd-resolved.service
    expect resolved.conf Resolve LLMNR no
    expect resolved.conf Resolve MulticastDNS no
    expect resolved.conf Resolve DNSStubListenerExtra ""
    for other in $others; do
        [ -n "$(enabled "$other.service")" ] || echo "$other.service manages the network, too"
    done
    if [ "$PARAM_FORWARDING" = false ]; then
        for folder in etc run usr/local/lib usr/lib; do
            [ ! -d "$folder/systemd" ] || find "$folder/systemd" -path '*network*' -type f -exec \
                grep -HiE '^[ \t]*(IPForward|IPv4Forwarding|IPv6Forwarding|IPMasquerade)[ \t]*=[ \t]*(yes|true|1|on|ipv4|ipv6|both)' {} + |
                grep -v '/lib/systemd/network/80-' | sed 's,^,forwards: /,' || true
        done
    fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "systemd-networkd alone manages the network; no LLMNR, no multicast DNS, forwarding allowed: $PARAM_FORWARDING"
