set -eu
[ -n "$PARAM_PARAMETERS" ] || { echo "no parameters are asked for: nothing to look at"; exit 1; }
bad=$(
    parameter $PARAM_PARAMETERS
    parameters | FORBIDDEN=$(printf '%s\n' "$PARAM_FORBIDDEN" | normal) awk '
        BEGIN { count = split(ENVIRON["FORBIDDEN"], never, "\n") }
        /^(rd)?init=/ { print "kernel parameter " $0 " starts another program than systemd" }
        {
            for (i = 1; i <= count; i++)
                if (never[i] != "" && ($0 == never[i] || index($0, never[i] "=") == 1 || index($0, never[i] ",") == 1)) {
                    print "kernel parameter " $0 " must not be there"; next
                }
        }'
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(parameters | wc -l) kernel parameters, the defences among them"
