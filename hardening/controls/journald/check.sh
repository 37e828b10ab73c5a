set -eu
bad=$(
    if [ "$LIVE" = 1 ]; then
        active systemd-journald.service
        [ -s "/var/log/journal/$(cat /etc/machine-id)/system.journal" ] || echo "no journal of this machine under /var/log/journal"
        exit 0
    fi
    expect journald.conf Journal Storage persistent
    expect journald.conf Journal Compress yes
    expect journald.conf Journal ForwardToSyslog no
    expect journald.conf Journal SystemMaxUse "$PARAM_MAX_USE"
    expect journald.conf Journal SystemKeepFree "$PARAM_KEEP_FREE"
    level=$(setting journald.conf Journal MaxLevelStore)
    case $level in '' | debug | info | 6 | 7) ;; *) echo "only what is as bad as $level is kept" ;; esac
    for forwards in Socket Console Wall KMsg; do
        found=$(setting journald.conf Journal "ForwardTo$forwards")
        case $forwards:$found in *: | *:no | *:0 | *:false | Wall:yes | Wall:1 | Wall:true) ;; *) echo "systemd/journald.conf: ForwardTo$forwards is $found" ;; esac
    done
    kept=$(setting journald.conf Journal MaxRetentionSec)
    printf '%s\n' "$kept" | grep -qxE '|0|[0-9]{6,}s?|[0-9]+ ?(d|days?|w|weeks?|M|months?|y|years?)' || echo "entries are thrown away after $kept (MaxRetentionSec)"
    comes_up systemd-journald.service
    comes_up systemd-journal-flush.service
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "the journal is kept on disk, compressed, $PARAM_MAX_USE at most, and sent to nobody else"
