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

# pins: what apt_preferences(5) keeps from security updates: an installed package of a version, or what comes from there for less
# than the priority of what is installed, unless a pin before it in the file takes it. Names with wildcards count as these, and
# hosts that sources or lists of mirrors name beside security updates.
pins() {
    hosts=$(find etc/apt/sources.list etc/apt/sources.list.d etc/apt/mirrors -xdev -type f -exec grep -qE '^[^#]*-security' {} \; \
        -exec grep -hoE '://[^/[:space:]]+' {} \; 2>/dev/null | sed -E 's,.*[/@],,; s/:.*//')
    status=$(find var/lib/dpkg/status -xdev -type f 2>/dev/null || true)
    find etc/apt/preferences etc/apt/preferences.d -xdev -type l -printf '/%p is a link, and may say anything\n' 2>/dev/null || true
    find etc/apt/preferences etc/apt/preferences.d -xdev -type f \( ! -name '*.*' -o -name '*.pref' \) 2>/dev/null | sort | while IFS= read -r file; do
        sed -E 's/^[[:space:]]*$//; /^#/d' "$file" | awk -v file="/$file" -v hold="$PARAM_HOLD" -v hosts="$hosts" -v status="$status" '
            function elsewhere(key, value) {
                if (value ~ /[*?\/]/) return 0
                return key == "o=" && value != "Debian" || key == "l=" && value != "Debian-Security" || key ~ /^[an]=$/ && value !~ /-security$/
            }
            BEGIN {
                count = split(hold, held, "\n"); for (i = 1; i <= count; i++) may[held[i]]
                count = split(hosts, site, "\n"); for (i = 1; i <= count; i++) secures[site[i]]
                while (status != "" && (getline line < status) > 0) if (sub(/^Package: */, "", line)) { installed[line]; known = 1 }
                RS = ""; FS = "\n"
            }
            {
                split("", of)
                for (i = 1; i <= NF; i++) {
                    at = index($i, ":"); value = substr($i, at + 1); gsub(/^[ \t]+|[ \t]+$/, "", value)
                    of[tolower(substr($i, 1, at - 1))] = value
                }
                keeps = of["pin"] ~ /^version[ \t]/ || of["pin"] ~ /^(origin|release)[ \t]/ && of["pin-priority"] + 0 < 100
                terms = host = of["pin"]; sub(/^release[ \t]+/, "", terms); gsub(/^origin[ \t]+|"/, "", host)
                count = terms != of["pin"] ? split(terms, term, /[ \t]*,[ \t]*/) : 0
                for (i = 1; i <= count; i++) if (elsewhere(substr(term[i], 1, 2), substr(term[i], 3))) keeps = 0
                if (of["pin"] ~ /^origin/ && host ~ /^[^*?\/]+$/ && !(host in secures)) keeps = 0
                if (of["package"] == "*") {
                    taken = taken || !keeps && terms ~ /^(o=Debian|l=Debian-Security)([ \t]*,[ \t]*(o=Debian|l=Debian-Security))*$/
                    if (taken) keeps = 0
                }
                count = keeps ? split(of["package"], name, /[ \t]+/) : 0
                for (i = 1; i <= count; i++) {
                    package = plain = name[i]; sub(/[*]$/, "", name[i]); sub(/:[a-z0-9-]+$/, "", plain)
                    if (known && package !~ /[*?\/[]|^src:/ && !(plain in installed)) continue
                    if (!(name[i] in may)) print file ": Pin: " of["pin"] ", " of["pin-priority"] ": no updates of " package
                }
            }'
    done
}

bad=$(
    pins
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
