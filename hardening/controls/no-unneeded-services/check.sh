set -eu
cd "$ROOT"
units='autofs avahi-daemon kea-dhcp4-server kea-dhcp6-server kea-dhcp-ddns-server isc-dhcp-server named bind9 dnsmasq
vsftpd proftpd pure-ftpd slapd dovecot exim4 postfix sendmail nfs-server nfs-kernel-server ypserv cups cups-browsed
rpcbind rsync rsyncd smbd nmbd winbind snmpd inetutils-inetd telnetd inetd xinetd openbsd-inetd tftpd-hpa atftpd squid
apache2 httpd nginx lighttpd bluetooth ModemManager multipathd iscsid open-iscsi rpc-statd systemd-journal-gatewayd
systemd-journal-remote xrdp vncserver gdm gdm3 lightdm sddm'
count=$(find usr/lib/systemd/system -xdev -maxdepth 1 \( -name '*.service' -o -name '*.socket' \) 2>/dev/null | wc -l)
[ "$count" -gt 0 ] || { echo "no units under /usr/lib/systemd/system: nothing to look at"; exit 1; }
line='
'
asked= names=
for unit in $units; do
    case "$line$PARAM_ALLOW$line" in *"$line$unit$line"*) continue ;; esac
    asked="$asked $unit" names="$names $unit.service $unit.socket"
done
bad=$(for unit in $asked; do
    for kind in service socket; do
        for folder in usr/lib/systemd/system etc/systemd/system usr/local/lib/systemd/system; do
            [ -e "$folder/$unit.$kind" ] || continue
            echo "/$folder/$unit.$kind: leave its package out, or name $unit in allow"
        done
    done
    for folder in usr/sbin usr/bin usr/local/sbin usr/local/bin; do
        case $unit in rsync | sendmail) continue ;; esac
        [ ! -e "$folder/$unit" ] || echo "/$folder/$unit: leave its package out, or name $unit in allow"
    done
    for script in "etc/init.d/$unit" "etc/xinetd.d/$unit"; do
        [ ! -e "$script" ] || echo "/$script: leave its package out, or name $unit in allow"
    done
done
[ "$LIVE" = 0 ] || [ -z "$names" ] || inactive $names)  # one question about all: each takes its time
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$count units of services and sockets, none of a server that the machine is not for"
