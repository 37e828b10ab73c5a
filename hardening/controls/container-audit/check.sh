# That nothing takes rules back or unlocks them, and that all are loaded, is asked by audit-rules.
set -eu
cd "$ROOT"
[ -x usr/sbin/dockerd ] || [ -x usr/bin/dockerd ] || { echo "dockerd is not installed: nothing to look at"; exit 1; }
[ -d etc/audit/rules.d ] && [ ! -L etc/audit/rules.d ] || { echo "/etc/audit/rules.d is missing, or a link: nobody hears who changes Docker"; exit 1; }
[ -n "$PARAM_PATHS" ] || { echo "no paths are asked for: nothing to look at"; exit 1; }
# A line `PATH PERMISSIONS` for each rule that tells every use of a path: without -p, a watch tells all four kinds.
told=$(
    audit_rules | awk '
        {
            path = permissions = ""; whole = 1
            for (i = 1; i <= NF; i += 2) {
                word = $(i + 1)
                if ($i == "-w") { path = word; if (permissions == "") permissions = "rwxa" }
                else if ($i == "-p") permissions = word
                else if ($i == "-F" && word ~ /^(path|dir)=/) path = substr(word, index(word, "=") + 1)
                else if ($i == "-F" && word ~ /^perm=/) permissions = substr(word, 6)
                else if (!($i == "-a" && word ~ /^(always,exit|exit,always)$/ || $i == "-S" && word == "all" ||
                    $i == "-k" && word != "" || $i == "-F" && word ~ /^key=/)) whole = 0
            }
            if (path ~ /.\/$/) path = substr(path, 1, length(path) - 1)
            if (whole && permissions ~ /^[rwxa]+$/) print path, permissions
        }'
)
found=$(
    printf '%s\n' "$PARAM_PATHS" | while IFS= read -r path; do
        # What is not installed here needs no rule; sockets are there only while the engine runs.
        case $path in /run/*) ;; *) [ -e ".$path" ] || continue ;; esac
        case $path in
            */bin/* | */sbin/*) needed=wxa what="changed or run: no rule tells writing, execution and attributes" ;;
            *) needed=wa what="changed: no rule tells writing and attributes" ;;
        esac
        lacks=$(printf '%s\n' "$told" | awk -v path="${path%/}" -v needed="$needed" '
            $1 == path { all = all $2 }
            END { for (i = 1; i <= length(needed); i++) if (!index(all, substr(needed, i, 1))) { print needed; exit } }')
        if [ -z "$lacks" ]; then echo "heard $path"; else echo "no audit rule reports that $path is $what (-w $path -p $needed)"; fi
    done
)
[ -n "$found" ] || { echo "none of the paths is there: nothing to look at"; exit 1; }
bad=$(printf '%s\n' "$found" | grep -v '^heard ' || true)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(printf '%s\n' "$found" | wc -l) paths of Docker are watched"
