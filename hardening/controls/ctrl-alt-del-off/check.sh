set -eu
bad=$(
    if [ "$LIVE" = 1 ]; then
        state=$(systemctl show --property=LoadState --value ctrl-alt-del.target)
        [ "$state" = masked ] || echo "ctrl-alt-del.target is $state in the running system"
        exit 0
    fi
    state=$(SYSTEMD_OFFLINE=1 systemctl --root="$ROOT" is-enabled ctrl-alt-del.target 2>&1) || true
    [ "$state" = masked ] || echo "ctrl-alt-del.target is $state, not masked"
    expect system.conf Manager CtrlAltDelBurstAction none
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "ctrl-alt-del.target is masked, and pressing it again and again does nothing"
