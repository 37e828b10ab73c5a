set -eu
cd "$ROOT"
[ -f etc/shadow ] && [ ! -L etc/shadow ] || { echo "/etc/shadow is missing: nothing to look at"; exit 1; }
bad=$(
    if [ "$LIVE" = 1 ]; then
        [ "$(systemctl show --property=LoadState --value debug-shell.service)" = masked ] || echo "debug-shell.service can be started"
        systemctl show --property=Environment --value emergency.service rescue.service | grep FORCE || true
        parameters | grep -E 'SULOGIN_FORCE|^systemd\.setenv=' | sed 's/^/kernel parameter /' || true
        exit 0
    fi
    for mode in emergency rescue; do
        expect "system/$mode.service" Service ExecStart "-/usr/lib/systemd/systemd-sulogin-shell $mode"
    done
    state=$(SYSTEMD_OFFLINE=1 systemctl --root="$ROOT" is-enabled debug-shell.service 2>&1) || true
    [ "$state" = masked ] || echo "debug-shell.service is $state, not masked"
    for folder in etc/systemd/system usr/lib/systemd/system usr/local/lib/systemd/system; do
        if [ -d "$folder" ]; then grep -rnE 'SYSTEMD_SULOGIN_FORCE|--autologin|agetty .*-a ' "$folder" | sed 's,^,/,' || true; fi
    done
    parameters | grep -E 'SULOGIN_FORCE|^systemd\.setenv=' | sed 's/^/kernel parameter /' || true
    password=$(awk -F: '$1 == "root" {print $2; found = 1} END {if (!found) print "absent"}' etc/shadow)
    case $password in '!'* | '*'*) ;; *) echo "root is not locked: its console takes ${password:+a password}${password:-no password at all}" | sed 's/takes a password.*/takes a password/' ;; esac
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "emergency and rescue ask for a password that root does not have; no debugging shell, no automatic login"
