# Which files of AppArmor profiles do something in this image.

# idle FILE: whether no profile in it confines anything here, because it says `unconfined`, or only complains about a
# program that is not in the image.
idle() {
    for program in $(awk '
        /^(profile[ \t]|\/).*\{[ \t]*$/ {
            seen = 1
            if ($0 ~ /flags=\([^)]*unconfined/) next
            path = $1 == "profile" ? $3 : $1
            print ($0 ~ /flags=\([^)]*complain/ && path ~ /^\/[A-Za-z0-9_.\/-]+$/) ? path : "confines"
        }
        END { if (!seen) print "confines" }' "$1"); do
        [ "$program" != confines ] && [ ! -e "${ROOT%/}$program" ] || return 1
    done
}
