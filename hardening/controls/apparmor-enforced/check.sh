set -eu
cd "$ROOT"
[ -d etc/apparmor.d ] && [ ! -L etc/apparmor.d ] && [ -x usr/sbin/apparmor_parser ] || { echo "AppArmor is not installed: nothing to look at"; exit 1; }
profiles=$(find etc/apparmor.d -maxdepth 1 -type f | wc -l)
[ "$profiles" -gt 0 ] || { echo "no profile in /etc/apparmor.d: nothing to look at"; exit 1; }

# Whether a file of profiles may stay in complain mode.
may_complain() {
    printf '%s\n' "$PARAM_COMPLAIN" | while read -r pattern; do
        case $1 in $pattern) echo yes ;; esac
    done | grep -q yes
}

bad=$(
    parameter apparmor=1 security=apparmor
    enabled apparmor.service
    grep -lE '^[^#]*flags=\([^)]*complain' -r etc/apparmor.d | while read -r file; do
        may_complain "${file##*/}" || echo "/$file only complains"
    done
    find etc/apparmor.d/force-complain etc/apparmor.d/disable -mindepth 1 -printf '/%p takes a profile out of force\n' 2>/dev/null || true
    if [ "$LIVE" = 1 ]; then
        [ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ] || echo "AppArmor is off in the running kernel"
        active apparmor.service
        enforced=$(aa-status --enforced)
        [ "${enforced:-0}" -gt 0 ] || echo "no profile is in force"
    fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "AppArmor is on, with $profiles files of profiles"
