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
        systemctl show --property=Environment,EnvironmentFiles emergency.service rescue.service | grep -E 'FORCE|^EnvironmentFiles=.' || true
        systemctl show --property=Environment | sed -n 's/.*\(SYSTEMD_SULOGIN_FORCE=[^ ]*\).*/systemd gives \1 to every service/p'
        exit 0
    fi
    for mode in emergency rescue; do
        expect "system/$mode.service" Service ExecStart "-/usr/lib/systemd/systemd-sulogin-shell $mode"
        config_lines "system/$mode.service" | grep -E '^[[:space:]]*(EnvironmentFile|Exec[A-Za-z]*)[[:space:]]*=[[:space:]]*[^[:space:]]' |
            grep -vxE "ExecStart=-/usr/lib/systemd/systemd-sulogin-shell $mode|ExecStartPre=-plymouth --wait quit" |
            sed "s,^,systemd/system/$mode.service: ," || true
    done
    state=$(SYSTEMD_OFFLINE=1 systemctl --root="$ROOT" is-enabled debug-shell.service 2>&1) || true
    [ "$state" = masked ] || echo "debug-shell.service is $state, not masked"
    config_lines system.conf | sed -n '/SULOGIN_FORCE/s,^,systemd/system.conf: ,p'
    # agetty's -a logs in, -n asks for no name, -l starts another program than login, whose -f asks for no password.
    opened='SYSTEMD_SULOGIN_FORCE|--autologin|agetty.*([[:space:]]-[A-Za-z0-9]*[aln]|--skip-login|--login-program|['\''"[:space:]]-[A-Za-z0-9]*f)|(Set|Load)Credential(Encrypted)?[[:space:]]*=[^:]*(agetty|login)\.'
    for folder in etc/systemd/system usr/lib/systemd/system usr/local/lib/systemd/system; do
        if [ -d "$folder" ]; then grep -rnE "$opened" "$folder" | sed 's,^,/,' || true; fi
    done
    for folder in etc/systemd/system usr/local/lib/systemd/system usr/lib/systemd/system; do
        [ ! -d "$folder" ] || find "$folder" -name '*.service' -type f ! -name debug-shell.service -exec awk '
            FNR == 1 { terminal = "" }
            /^[ \t]*StandardInput[ \t]*=[ \t]*tty/ { terminal = 1 }
            /^[ \t]*ExecStart[ \t]*=.*\/(ba|da|k|z|fi|c|tc)?sh([ \t]+-[-a-z]+)*[ \t]*$/ { shell[FILENAME] = $0 }
            terminal && FILENAME in shell { print "/" FILENAME ": a shell at a console: " shell[FILENAME]; delete shell[FILENAME] }' {} +
    done
    password=$(awk -F: '$1 == "root" {print $2; found = 1} END {if (!found) print "absent"}' etc/shadow)
    case $password in '!'* | '*'*) ;; *) echo "root is not locked: its console takes ${password:+a password}${password:-no password at all}" | sed 's/takes a password.*/takes a password/' ;; esac
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "emergency and rescue ask for a password that root does not have; no debugging shell, no automatic login"
