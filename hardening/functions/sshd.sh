# What sshd is told: by its files under $ROOT, and by `sshd -T` where LIVE=1. Stands before a script; nothing runs yet.

# Ends the check where there is no sshd; otherwise stands in $ROOT.
sshd_or_end() {
    cd "$ROOT"
    sshd_bad='' sshd_said=''
    [ -e usr/sbin/sshd ] || { echo "no sshd in this image"; exit 2; }
    [ -f etc/ssh/sshd_config ] && [ ! -L etc/ssh/sshd_config ] || { echo "/etc/ssh/sshd_config is missing"; exit 1; }
    sshd_started_otherwise
    sshd_files=$(sshd_read etc/ssh/sshd_config '')
    unread=$(printf '%s\n' "$sshd_files" | sed -n 's/^unread //p')
    [ -z "$unread" ] || { printf 'sshd reads what is behind a link, or too many includes deep, which is not followed here: %s\n' "$unread"; exit 1; }
    sshd_live=
    [ "$LIVE" = 0 ] || sshd_live=$(sshd -T) || { echo "sshd -T refuses its configuration"; exit 1; }
}

# Ends the check where sshd is started with settings that stand before those of the files, or with another file.
sshd_started_otherwise() {
    found=$(grep -sE '^[[:space:]]*[^#;[:space:]].*-[A-Za-z0-9]*[of]' etc/default/ssh || true
        grep -shE '^[[:space:]]*(ExecStart|EnvironmentFile)[[:space:]]*=[[:space:]]*[^[:space:]]|^[^#;]*SSHD_OPTS=' \
            etc/systemd/system/ssh.service etc/systemd/system.conf etc/systemd/system.conf.d/*.conf $(
            for folder in etc run usr/local/lib usr/lib; do
                echo "$folder/systemd/system/ssh.service.d/*.conf $folder/systemd/system/service.d/*.conf"
            done
        ) || true
        grep -rshE '^[[:space:]]*ExecStart[[:space:]]*=.*/sshd[[:space:]].*-[A-Za-z0-9]*[of]' etc/systemd/system usr/local/lib/systemd/system usr/lib/systemd/system || true)
    [ -z "$found" ] || { printf 'sshd is started in a way of its own, past its files: %s\n' "$found"; exit 1; }
}

# FILE BLOCK: `keyword value` a line, in the order in which sshd reads them; inside a Match block `match` comes first.
# What a file includes stands in its place, and a Match block ends with its file. sshd includes 16 levels deep.
sshd_read() {
    awk '{
        gsub(/["\047]/, ""); sub(/^[ \t]+/, ""); sub(/(^|[ \t])#.*/, ""); sub(/[ \t\r]+$/, "")
        if ($0 == "") next
        match($0, /^[A-Za-z0-9]*/); key = tolower(substr($0, 1, RLENGTH)); value = substr($0, RLENGTH + 1)
        if (key ~ /^(challengeresponse|skey)authentication$/) key = "kbdinteractiveauthentication" # older names
        if (key == "dsaauthentication") key = "pubkeyauthentication"
        sub(/^[ \t]*=?[ \t]*/, "", value); print key " " value
    }' "$1" | {
        block=$2 depth=${3-}.
        while read -r key value; do
            case $key in
                match) block='match ' ;;
                include)
                    set -f # what a pattern stands for is looked for in the tree, and not on this machine
                    set -- $value
                    set +f
                    for pattern; do
                        case $pattern in /*) ;; *) pattern=/etc/ssh/$pattern ;; esac
                        for file in .$pattern; do
                            if [ -L "$file" ] || [ ${#depth} -gt 16 ] || ! sshd_inside "$file"; then
                                echo "unread ${file#.}"
                            elif [ -f "$file" ]; then
                                sshd_read "$file" "$block" "$depth"
                            fi
                        done
                    done
                    ;;
                *) printf '%s%s %s\n' "$block" "$key" "$value" ;;
            esac
        done
    }
}

# FILE: whether its folder lies in the tree, there or not.
sshd_inside() {
    case $(realpath -m -- "${1%/*}")/ in "${ROOT%/}"/*) ;; *) return 1 ;; esac
}

# KEYWORD DEFAULT: sets `value` to what holds for everyone. The first line counts, as it does for sshd.
sshd_value() {
    value='' said=$sshd_live
    [ "$LIVE" = 1 ] || said=$sshd_files
    while read -r key rest; do
        [ "$key" != "$1" ] || { value=$rest; break; }
    done <<EOF
$said
EOF
    value=${value:-$2}
}

# KEYWORD DEFAULT TEST…: whether the value, and every one of a Match block, passes the command TEST VALUE.
sshd_each() {
    keyword=$1 default=$2
    shift 2
    sshd_value "$keyword" "$default"
    "$@" "$value" || sshd_bad="$sshd_bad$keyword is $value, not $sshd_want
"
    sshd_said="$sshd_said$keyword $value
"
    case $sshd_files in *"match $keyword "*) ;; *) return ;; esac
    for value in $(printf '%s\n' "$sshd_files" | sed -n "s/^match $keyword //p" | tr ' ' '_'); do
        "$@" "$value" || sshd_bad="$sshd_bad$keyword is $value in a Match block, not $sshd_want
"
    done
}

# KEYWORD DEFAULT VALUE: it must be VALUE, in capital letters or not.
sshd_is() {
    sshd_want=$3
    sshd_each "$1" "$2" sshd_same "$3"
}
sshd_same() { [ "$2" = "$1" ] || [ "$(printf '%s' "$2" | tr '[:upper:]' '[:lower:]')" = "$1" ]; }

# KEYWORD DEFAULT MAXIMUM: it must be a number from 1 to MAXIMUM, since 0 means no limit.
sshd_at_most() {
    sshd_want="a number from 1 to $3"
    sshd_each "$1" "$2" sshd_within "$3"
}
sshd_within() {
    case $2 in '' | *[!0-9]*) return 1 ;; esac
    [ "$2" -ge 1 ] && [ "$2" -le "$1" ]
}

# KEYWORD DEFAULT ALLOWED: a list with commas, all of whose items stand in ALLOWED, one a line.
sshd_only() {
    sshd_want="only $(printf '%s' "$3" | tr '\n' ',')"
    sshd_each "$1" "$2" sshd_subset "$3"
}
sshd_subset() {
    [ -n "$2" ] && ! printf '%s\n' "$2" | tr ',' '\n' | grep -qvxF -e "$1"
}

# KEYWORD VALUE: writes it above the first Include, where nothing that is included comes before it, and takes away what
# the file itself says of KEYWORD to everyone. Does nothing where there is no sshd, or where it is so already.
sshd_set() {
    file=$ROOT/etc/ssh/sshd_config
    [ -f "$file" ] && [ ! -L "$file" ] || return 0
    ours='# Up to the next Include: set by Goldsmith, above what is included, since the first value counts.'
    new=$(KEY=$1 VALUE=$2 OURS=$ours awk '
        function place() {
            if (placed) return
            if (!marked) print ENVIRON["OURS"]
            print ENVIRON["KEY"] " " ENVIRON["VALUE"]; placed = 1
        }
        {word = tolower($1); gsub(/"|=.*/, "", word)}
        word == "include" || word == "match" {place()}
        word == "match" {inside = 1}
        $0 == ENVIRON["OURS"] && marked++ {next}
        !inside && word == tolower(ENVIRON["KEY"]) {
            if (!placed && $0 == ENVIRON["KEY"] " " ENVIRON["VALUE"]) {placed = 1; print}
            next
        }
        {print}
        END {place()}' "$file")
    [ "$new" = "$(cat "$file")" ] || printf '%s\n' "$new" > "$file"
}

# Ends the check with what was found.
sshd_end() {
    if [ -n "$sshd_bad" ]; then
        printf '%s' "$sshd_bad"
        exit 1
    fi
    printf '%s' "$sshd_said"
}
