set -eu
cd "$ROOT"
[ -f etc/shadow ] && [ ! -L etc/shadow ] || { echo "/etc/shadow is missing: nothing to look at"; exit 1; }
bad=$(
    # What systemd gives to agetty and login at a console.
    for folder in etc/credstore run/credstore usr/local/lib/credstore usr/lib/credstore run/credentials/@; do
        for store in "$folder"*; do
            [ ! -L "$store" ] || echo "/$store is a link, and may hold any credential"
            for file in "$store"/*; do
                case ${file##*/} in
                    agetty.autologin* | login.noauth* | tty.*.agetty.* | tty.*.login.*) echo "/$file lets a console log in by itself" ;;
                esac
            done
        done
    done
    parameters | grep -E 'SULOGIN_FORCE|^systemd\.setenv=|^systemd\.set[-_]credential[^:]*(agetty|login)\.' | sed 's/^/kernel parameter /' || true
    if [ "$LIVE" = 1 ]; then
        [ "$(systemctl show --property=LoadState --value debug-shell.service)" = masked ] || echo "debug-shell.service can be started"
        systemctl show --property=Environment --value emergency.service rescue.service | grep FORCE || true
        systemctl show --property=Environment | sed -n 's/.*\(SYSTEMD_SULOGIN_FORCE=[^ ]*\).*/systemd gives \1 to every service/p'
        exit 0
    fi
    for mode in emergency rescue; do
        expect "system/$mode.service" Service ExecStart "-/usr/lib/systemd/systemd-sulogin-shell $mode"
    done
    state=$(SYSTEMD_OFFLINE=1 systemctl --root="$ROOT" is-enabled debug-shell.service 2>&1) || true
    [ "$state" = masked ] || echo "debug-shell.service is $state, not masked"
    config_lines system.conf | sed -n '/SULOGIN_FORCE/s,^,systemd/system.conf: ,p'
    opened='SYSTEMD_SULOGIN_FORCE|--autologin|agetty .*-a |(Set|Load)Credential(Encrypted)?[[:space:]]*=[^:]*(agetty|login)\.'
    for folder in etc/systemd/system usr/lib/systemd/system usr/local/lib/systemd/system; do
        if [ -d "$folder" ]; then grep -rnE "$opened" "$folder" | sed 's,^,/,' || true; fi
    done
    password=$(awk -F: '$1 == "root" {print $2; found = 1} END {if (!found) print "absent"}' etc/shadow)
    case $password in '!'* | '*'*) ;; *) echo "root is not locked: its console takes ${password:+a password}${password:-no password at all}" | sed 's/takes a password.*/takes a password/' ;; esac
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "emergency and rescue ask for a password that root does not have; no debugging shell, no automatic login"
