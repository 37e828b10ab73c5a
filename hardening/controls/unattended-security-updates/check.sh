# What counts is apt's own reading of all its files, in the tree.
set -eu
cd "$ROOT"
if [ "$LIVE" = 1 ]; then
    bad=$(active apt-daily.timer apt-daily-upgrade.timer)
    [ -z "$bad" ] || { echo "$bad"; exit 1; }
    echo "the timers for updates run"
    exit 0
fi
[ -x usr/bin/unattended-upgrade ] || { echo "unattended-upgrades is not installed: nothing would install updates"; exit 1; }
settings=$(apt_settings) || { echo "$settings"; exit 1; }

# is KEY VALUE: says what is set otherwise. apt reads keys in any case of letters, and dump keeps the one it met first.
is() {
    found=$(printf '%s\n' "$settings" | sed -n "s/^$1 \"\\(.*\\)\";\$/\\1/Ip")
    [ "$found" = "$2" ] || echo "$1 is ${found:-set nowhere}, not $2"
}

bad=$(
    is APT::Periodic::Update-Package-Lists 1
    is APT::Periodic::Unattended-Upgrade 1
    found=$(printf '%s\n' "$settings" | sed -n 's/^APT::Periodic::Enable "\(.*\)";$/\1/Ip')
    [ "${found:-1}" = 1 ] || echo "APT::Periodic::Enable is $found: nothing is done by itself"
    is Unattended-Upgrade::Automatic-Reboot "$PARAM_REBOOT"
    is Unattended-Upgrade::InstallOnShutdown false
    origins=$(printf '%s\n' "$settings" | sed -n 's/^Unattended-Upgrade::\(Origins-Pattern\|Allowed-Origins\)::[^ ]* "\(.*\)";$/\2/Ip')
    printf '%s\n' "$origins" | grep -q 'codename=${distro_codename}-security,label=Debian-Security' || echo "security updates are in no pattern"
    printf '%s\n' "$origins" | grep . | grep -v '^origin=Debian,codename=${distro_codename}\(-security\)\?,label=Debian-Security$' | sed 's/^/more than security updates: /' || true
    printf '%s\n' "$settings" | sed -n 's/^Unattended-Upgrade::Package-Blacklist::[^ ]* "\(.*\)";$/\1/Ip' | while read -r name; do
        printf '%s\n' "$PARAM_HOLD" | grep -qxF -e "$name" || echo "packages $name* never get updates"
    done
    printf '%s\n' "$settings" | sed -n 's/^Unattended-Upgrade::Package-Whitelist::[^ ]* "\(.*\)";$/only packages \1* get updates/Ip'
    printf '%s\n' "$settings" | sed -n 's/^Unattended-Upgrade::Update-Days::[^ ]* "\(.*\)";$/updates install themselves only on \1/Ip'
    find etc/apt/sources.list etc/apt/sources.list.d -xdev -type f -exec grep -hE '^[^#]*-security' {} + 2>/dev/null | grep -q . ||
        echo "no source of packages names security updates"
    for step in daily:update daily-upgrade:install; do
        unit=apt-${step%:*}
        comes_up "$unit.timer"
        comes_up "$unit.service"
        expect "system/$unit.service" Service ExecStart "/usr/lib/apt/apt.systemd.daily ${step#*:}"
        times=$(setting "system/$unit.timer" Timer OnCalendar)
        printf '%s\n' "$times" | grep -qE '^(\*-\*-\* |[0-9*][0-9,.*/]*:|daily$|hourly$)' || echo "$unit.timer does not run every day: OnCalendar is ${times:-set nowhere}"
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "security updates install themselves, daily, and nothing else does"
