set -eu
[ -n "$PARAM_PARAMETERS" ] || { echo "no parameters are asked for: nothing to look at"; exit 1; }
bad=$(
    parameter $PARAM_PARAMETERS
    parameters | while read -r word; do
        case $word in init=* | rdinit=*) echo "kernel parameter $word starts another program than systemd" ;; esac
        printf '%s\n' "$PARAM_FORBIDDEN" | while read -r never; do
            case $word in "$never" | "$never"=* | "$never",*) echo "kernel parameter $word must not be there" ;; esac
        done
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(parameters | wc -l) kernel parameters, the defences among them"
