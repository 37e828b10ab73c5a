set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/pam.d/common-auth ] || fail "/etc/pam.d/common-auth is missing: nothing to look at"
find usr/lib/*/security usr/lib/security -name pam_faillock.so 2>/dev/null | grep -q . || fail "the module pam_faillock.so is missing"
order=$(pam_lines common-auth auth | awk '
    /pam_faillock\.so.*preauth/ {print "before"} /pam_unix\.so/ {print "password"} /pam_faillock\.so.*authfail/ {print "after"}')
[ "$(printf '%s' "$order" | tr '\n' ' ')" = "before password after" ] ||
    fail "/etc/pam.d/common-auth: the order is '$(printf '%s' "$order" | tr '\n' ' ')', not 'before password after'"
idle=$(pam_lines common-auth auth | awk '
    /pam_faillock\.so[ \t]+(.*[ \t])?(preauth|authfail)/ && $2 !~ /^(required|requisite)$/ && !(/authfail/ && /[ \t]\[default=die\][ \t]/)')
[ -z "$idle" ] || fail "/etc/pam.d/common-auth: failures are without consequence: $idle"
others=$(pam_all auth | grep -F pam_unix.so | grep -v '^/etc/pam\.d/common-auth: ' || true)
[ -z "$others" ] || fail "$(printf 'asks for a password without counting failures:\n%s' "$others")"
told=$({ pam_lines common-auth auth; pam_lines common-account account; } | awk '{
    for (i = 1; i <= NF && $i !~ /pam_faillock\.so/;) i++
    while (++i <= NF) if ($i !~ /^(preauth|authfail|authsucc|audit|silent|no_log_info|nodelay|even_deny_root)$/) printf " %s", $i
}')
[ -z "$told" ] || fail "pam_faillock.so has arguments in /etc/pam.d that override faillock.conf:$told"
pam_lines common-account account | grep -q 'pam_faillock\.so' || fail "/etc/pam.d/common-account does not name pam_faillock.so"
[ -f etc/security/faillock.conf ] && [ ! -L etc/security/faillock.conf ] || fail "/etc/security/faillock.conf is missing"
setting() { sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" etc/security/faillock.conf | tail -n 1; }
deny=$(setting deny) unlock=$(setting unlock_time)
[ "${deny:-3}" -ge 1 ] && [ "${deny:-3}" -le "$PARAM_DENY" ] || fail "deny is ${deny:-3}, not from 1 to $PARAM_DENY"
[ "${unlock:-600}" -eq 0 ] || [ "${unlock:-600}" -ge "$PARAM_UNLOCK_TIME" ] ||
    fail "unlock_time is ${unlock:-600}, less than $PARAM_UNLOCK_TIME"
interval=$(setting fail_interval) root=$(setting root_unlock_time)
[ "${interval:-900}" -ge "$PARAM_UNLOCK_TIME" ] || fail "fail_interval is ${interval:-900}: who waits that long is not counted, less than $PARAM_UNLOCK_TIME"
[ "${root:-${unlock:-600}}" -eq 0 ] || [ "${root:-${unlock:-600}}" -ge 60 ] || fail "root_unlock_time is $root, less than 60"
# The members of admin_group are locked for root_unlock_time alone; the folder is empty after a boot, and root's.
weaker=$(grep -E '^[[:space:]]*(admin_group|dir)[[:space:]]*=' etc/security/faillock.conf | grep -vE '=[[:space:]]*(/var)?/run/faillock[[:space:]]*$' || true)
[ -z "$weaker" ] || fail "/etc/security/faillock.conf: $weaker"
grep -q '^[[:space:]]*even_deny_root' etc/security/faillock.conf || fail "even_deny_root is not set: root is never locked"
echo "locked for ${unlock:-600} s after ${deny:-3} failures, root too; 0 is until somebody unlocks"
