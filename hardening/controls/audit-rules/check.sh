set -eu
cd "$ROOT"
[ -d etc/audit/rules.d ] && [ ! -L etc/audit/rules.d ] || { echo "/etc/audit/rules.d is missing, or a link: nothing to look at"; exit 1; }
[ -n "$PARAM_RULES" ] || { echo "no rules are asked for: nothing to look at"; exit 1; }

# Of every -e only the last counts.
written=$(audit_rules)
count=$(printf '%s\n' "$written" | grep -cE '^-[aAw] ' || true)

if [ "$LIVE" = 1 ]; then
    loaded=$(auditctl -l | grep -cE '^-[aAw] ' || true)
    locked=$(auditctl -s | awk '$1 == "enabled" {print $2}')
    if [ "$loaded" -lt "$count" ] || [ "$loaded" -eq 0 ] || [ "$locked" != 2 ]; then
        echo "$loaded of $count rules are loaded, and enabled is ${locked:-not told}, where 2 is locked"
        exit 1
    fi
    echo "$loaded rules are loaded, locked until the next boot"
    exit 0
fi

bad=$(
    printf '%s\n' "$PARAM_RULES" | while read -r rule; do
        printf '%s\n' "$written" | grep -qxF -e "$rule" || echo "no such rule: $rule"
    done
    find . -xdev -type f -perm /6000 -printf '/%P\n' | while read -r program; do
        printf '%s\n' "$written" | grep -qF -e " path=$program " || echo "no audit rule reports that $program was used"
    done
    printf '%s\n' "$written" | grep -E '^(-d|-W|-D .)|[ ,](never|exclude)[ ,]' | sed 's/^/taken back or kept out by: /' || true
    printf '%s\n' "$written" | grep -E '^(-r [1-9]|-f 0|-b [0-9]{1,3}$)' | sed 's/^/events get lost by: /' || true
    last=$(printf '%s\n' "$written" | grep -E '^-e' | tail -n 1)
    [ "$last" = "-e 2" ] || echo "the rules are not locked: ${last:-no -e} counts"
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$count rules, locked until the next boot"
