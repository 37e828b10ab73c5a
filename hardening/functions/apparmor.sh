# Which files of AppArmor profiles do something in this image.

# idle FILE: whether no profile in it confines anything here, because it says `unconfined`, or only complains about a
# program that is not in the image. A brace outside of profiles that does not end a line with one header is not
# understood: the file counts as confining.
idle() {
    for program in $(awk '
        { sub(/#.*/, ""); gsub(/@\{[^}]*\}/, "@") }
        !depth && /\{/ && !/^[ \t]*@[ \t]*\+?=/ {
            seen = 1
            path = $1 == "profile" ? $3 : $1
            if ($0 !~ /^[ \t]*(profile[ \t]|\/).*\{[ \t]*$/ || /[ \t)]\{.*[ \t)]\{/) print "confines"
            else if ($0 !~ /flags=\([^)]*unconfined/)
                print ($0 ~ /flags=\([^)]*complain/ && path ~ /^\/[A-Za-z0-9_.\/-]+$/) ? path : "confines"
        }
        /[{}]/ {
            while (gsub(/\{[^{}]*\}/, "")) continue
            closed = gsub(/\}/, "}")
            if (closed && closed >= depth && /\}.*[^ \t\r}]/) print "confines"
            depth += gsub(/\{/, "{") - closed
        }
        END { if (!seen || depth) print "confines" }' "$1"); do
        [ "$program" != confines ] && [ ! -e "${ROOT%/}$program" ] || return 1
    done
}
