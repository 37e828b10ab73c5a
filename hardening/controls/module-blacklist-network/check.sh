set -eu
[ -n "$PARAM_MODULES" ] || { echo "no modules are named: nothing to look at"; exit 1; }
bad=$(barred "$PARAM_MODULES")
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "none of $(printf '%s\n' "$PARAM_MODULES" | wc -l) modules can be loaded by name or need"
