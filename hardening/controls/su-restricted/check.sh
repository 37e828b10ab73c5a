set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -e usr/bin/su ] || { echo "no su in this image"; exit 2; }
[ -s etc/pam.d/su ] && [ ! -L etc/pam.d/su ] && [ -s etc/group ] && [ ! -L etc/group ] ||
    fail "/etc/pam.d/su or /etc/group is missing: nothing to look at"
# FILE: what it asks of who logs in, but for root, who may.
asked() {
    pam_lines "$1" '(auth|@include)' | grep -vxE 'auth[[:space:]]+sufficient[[:space:]]+pam_rootok\.so[[:space:]]*'
}
first=$(asked su | head -n 1)
printf '%s\n' "$first" | grep -qE '^auth[[:space:]]+(required|requisite)[[:space:]]+pam_wheel\.so[[:space:]]' ||
    fail "/etc/pam.d/su does not ask pam_wheel.so before anything else, but: ${first:-nothing}"
for word in use_uid "group=$PARAM_GROUP"; do
    printf '%s\n' "$first" | grep -qE "[[:space:]]$word([[:space:]]|\$)" || fail "/etc/pam.d/su: pam_wheel.so lacks $word"
done
! printf '%s\n' "$first" | grep -qE '[[:space:]](deny|trust|root_only)([[:space:]]|$)' || fail "/etc/pam.d/su: pam_wheel.so trusts, turns the group round, or asks of root alone"
# For `su -` there is a file of its own.
if [ -e etc/pam.d/su-l ] || [ -L etc/pam.d/su-l ]; then
    [ ! -L etc/pam.d/su-l ] && asked su-l | awk '$1 != "auth" || $2 != "include" || $3 != "su" {bad = 1} END {exit bad || NR == 0}' ||
        fail "/etc/pam.d/su-l does not ask what /etc/pam.d/su asks, and that alone"
fi
line=$(grep "^$PARAM_GROUP:" etc/group) || fail "the group $PARAM_GROUP does not exist"
[ -z "${line##*:}" ] || fail "members of $PARAM_GROUP: ${line##*:}"
gid=$(printf '%s\n' "$line" | cut -d: -f3)
primary=$(awk -F: -v gid="$gid" '$4 == gid {print $1}' etc/passwd)
[ -z "$primary" ] || fail "members of $PARAM_GROUP: $primary"
echo "su is for root and for members of $PARAM_GROUP, of which there are none"
