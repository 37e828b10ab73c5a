# Prints names, never values: evidence is published.
set -eu
lines=$(cat -- "$IMAGE_HISTORY" "$IMAGE_CONFIG" | grep -cvxE '[][{}, ]*' || true)
[ "$lines" -gt 0 ] || { echo "no history and no configuration: nothing to look at"; exit 1; }

names=$(cat -- "$IMAGE_HISTORY" "$IMAGE_CONFIG" |
    grep -oiE '[A-Z0-9_.-]*(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?)[A-Z0-9_]*=("?[^[:space:]"$/][^[:space:]]*)' |
    sed 's/=.*//' | grep -viE '(_FILE|_PATH|_DIR|_URL)$' | sort -u | grep -vxF -e "$PARAM_ALLOW" -e '' || true)
shapes=$(cat -- "$IMAGE_HISTORY" "$IMAGE_CONFIG" | grep -cE \
    -e '(AKIA|ASIA)[A-Z0-9]{16}' -e 'gh[pousr]_[A-Za-z0-9]{36}' -e 'glpat-[A-Za-z0-9_-]{20}' -e 'xox[abprs]-[0-9]+-' \
    -e '-----BEGIN [A-Z ]*PRIVATE KEY' -e '[a-z]+://[^/@:[:space:]"]+:[^/@$[:space:]"]+@' || true)
if [ -n "$names" ]; then
    printf 'names of secrets with a value in the history, variables or labels:\n%s\n' "$names"
    exit 1
fi
if [ "$shapes" -gt 0 ]; then
    echo "$shapes lines of the history, variables or labels hold a key, a token or a password in an address"
    exit 1
fi
echo "$lines lines of history and configuration: no secrets"
