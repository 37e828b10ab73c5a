set -eu
[ -x "$ROOT/usr/sbin/auditd" ] || { echo "auditd is not installed: nobody would write the trail"; exit 1; }
bad=$(
    parameter audit=1 "audit_backlog_limit=$PARAM_BACKLOG"
    if [ "$LIVE" = 0 ]; then
        comes_up auditd.service
    else
        active auditd.service
        state=$(auditctl -s | awk '$1 == "enabled" {print $2}')
        case $state in 1 | 2) ;; *) echo "the kernel's audit is not enabled: ${state:-no answer}" ;; esac
    fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "audit is on, with room for $PARAM_BACKLOG events, and auditd starts by itself"
