set -eu
cd "$ROOT"
for file in etc/passwd etc/group; do
    [ -s $file ] && [ ! -L $file ] || { echo "/$file is missing: nothing to look at"; exit 1; }
done
twice() { cut -d: -f"$1" "$2" | sort | uniq -d | tr '\n' ' '; }
bad=$(
    for what in "1 etc/passwd name of several accounts" "3 etc/passwd number of several accounts" \
        "1 etc/group name of several groups" "3 etc/group number of several groups"; do
        set -- $what
        found=$(twice "$1" "$2")
        shift 2
        [ -z "$found" ] || echo "$*: $found"
    done
    grep -nE '^[+-]' etc/passwd etc/group | sed 's/^/an entry of another directory: /' || true
    # glibc takes a sign and zeros before a number, so that 01001 and +1001 are 1001.
    awk -F: 'NF != (FILENAME == "etc/passwd" ? 7 : 4) {print "/" FILENAME ": no whole entry: " $0}
        $3 !~ /^(0|[1-9][0-9]*)$/ {print "/" FILENAME ": " $1 " has the number " $3 ", which is not written plainly"}' etc/passwd etc/group
    awk -F: '$1 == "root" && ($3 != 0 || $4 != 0) {print "root has number " $3 " and group " $4}
        $1 != "root" && $4 == 0 && $1 !~ /^(sync|shutdown|halt|operator)$/ {print $1 " has root'"'"'s group"}' etc/passwd
    awk -F: '$1 != "root" && $3 == 0 {print "the group " $1 " has number 0"}
        ($1 == "root" || $1 == "shadow") && $4 != "" {print "members of the group " $1 ": " $4}' etc/group
    awk -F: 'FNR == NR {groups[$3] = $1; next} !($4 in groups) {print $1 " is in group " $4 ", which does not exist"}
        groups[$4] == "shadow" {print $1 " has the group shadow"}' etc/group etc/passwd
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(wc -l < etc/passwd) accounts and $(wc -l < etc/group) groups, each with its own name and number"
