set -eu
cd "$ROOT"
[ -d etc/apparmor.d ] && [ ! -L etc/apparmor.d ] && [ -x usr/sbin/apparmor_parser ] || { echo "AppArmor is not installed: nothing to look at"; exit 1; }

# Whether a file of profiles may stay in complain mode.
may_complain() {
    printf '%s\n' "$PARAM_COMPLAIN" | grep -qxF -e "$1"
}

if [ "$LIVE" = 1 ]; then
    bad=$(
        parameter apparmor=1 security=apparmor
        [ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ] || echo "AppArmor is off in the running kernel"
        active apparmor.service
    )
    profiles=$(aa-status --enforced)
else
    profiles=0
    for file in etc/apparmor.d/*; do
        if [ -f "$file" ] && [ ! -e "etc/apparmor.d/disable/${file##*/}" ]; then profiles=$((profiles + 1)); fi
    done
    bad=$(
        parameter apparmor=1 security=apparmor
        comes_up apparmor.service
        grep -lE '^[^#]*flags=\([^)]*complain' -r etc/apparmor.d | while read -r file; do
            may_complain "${file##*/}" || idle "$file" || echo "/$file only complains"
        done
        for link in etc/apparmor.d/disable/* etc/apparmor.d/force-complain/*; do
            [ -e "$link" ] || [ -L "$link" ] || continue
            file=etc/apparmor.d/${link##*/}
            [ ! -f "$file" ] || idle "$file" || echo "/$link takes a profile out of force"
        done
    )
fi
[ "${profiles:-0}" -gt 0 ] || bad="$bad
no profile is in force"
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "AppArmor is on, with $profiles profiles, or files of them"
