set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -e usr/bin/su ] || { echo "no su in this image"; exit 2; }
[ -s etc/pam.d/su ] && [ ! -L etc/pam.d/su ] && [ -s etc/group ] && [ ! -L etc/group ] ||
    fail "/etc/pam.d/su or /etc/group is missing: nothing to look at"
# As PAM reads it: lines without comments, each continued one as a whole, and the type in any case.
first=$(awk '
    { comment = sub(/#.*/, ""); line = joined $0; joined = "" }
    !comment && sub(/\\[ \t]*$/, " ", line) { joined = line; next }
    line ~ /^auth[ \t]+sufficient[ \t]+pam_rootok\.so[ \t]*$/ { next }
    tolower(line) ~ /^[ \t[]*(-?auth\]?|@include)[ \t]/ { print line; exit }' etc/pam.d/su)
printf '%s\n' "$first" | grep -qE '^auth[[:space:]]+(required|requisite)[[:space:]]+pam_wheel\.so[[:space:]]' ||
    fail "/etc/pam.d/su does not ask pam_wheel.so before anything else, but: ${first:-nothing}"
for word in use_uid "group=$PARAM_GROUP"; do
    printf '%s\n' "$first" | grep -qE "[[:space:]]$word([[:space:]]|\$)" || fail "/etc/pam.d/su: pam_wheel.so lacks $word"
done
! printf '%s\n' "$first" | grep -qE '[[:space:]](deny|trust)([[:space:]]|$)' || fail "/etc/pam.d/su: pam_wheel.so trusts, or turns the group round"
line=$(grep "^$PARAM_GROUP:" etc/group) || fail "the group $PARAM_GROUP does not exist"
[ -z "${line##*:}" ] || fail "members of $PARAM_GROUP: ${line##*:}"
gid=$(printf '%s\n' "$line" | cut -d: -f3)
primary=$(awk -F: -v gid="$gid" '$4 == gid {print $1}' etc/passwd)
[ -z "$primary" ] || fail "members of $PARAM_GROUP: $primary"
echo "su is for root and for members of $PARAM_GROUP, of which there are none"
