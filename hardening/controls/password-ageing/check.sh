set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
for file in etc/login.defs etc/default/useradd etc/shadow; do
    [ -s $file ] && [ ! -L $file ] || fail "/$file is missing: nothing to look at"
done
setting() { awk -v key="$1" '$1 == key {value = $2} END {print value}' etc/login.defs; }
max=$(setting PASS_MAX_DAYS) min=$(setting PASS_MIN_DAYS) warn=$(setting PASS_WARN_AGE)
[ "${max:-99999}" -ge 1 ] && [ "${max:-99999}" -le "$PARAM_MAXIMUM" ] || fail "PASS_MAX_DAYS is ${max:-not set}, not from 1 to $PARAM_MAXIMUM"
[ "${min:-0}" -ge "$PARAM_MINIMUM" ] || fail "PASS_MIN_DAYS is ${min:-not set}, less than $PARAM_MINIMUM"
[ "${warn:-0}" -ge 7 ] || fail "PASS_WARN_AGE is ${warn:-not set}, less than 7"
inactive=$(sed -n 's/^[[:space:]]*INACTIVE=//p' etc/default/useradd | tail -n 1)
[ "${inactive:--1}" -ge 0 ] && [ "${inactive:--1}" -le "$PARAM_INACTIVE" ] ||
    fail "/etc/default/useradd: INACTIVE is ${inactive:-not set}, not from 0 to $PARAM_INACTIVE"
old=$(awk -F: -v max="$PARAM_MAXIMUM" '$2 !~ /^[*!]/ && $2 != "" && ($5 == "" || $5 > max || $5 < 1) {print $1}' etc/shadow)
[ -z "$old" ] || fail "a password without an age limit: $old"
old=$(awk -F: -v inactive="$PARAM_INACTIVE" '$2 !~ /^[*!]/ && $2 != "" && ($7 == "" || $7 > inactive) {print $1}' etc/shadow)
[ -z "$old" ] || fail "not closed within $PARAM_INACTIVE days after its password got old: $old"
echo "passwords last $max days, accounts $inactive days longer"
