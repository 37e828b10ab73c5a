set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -e usr/bin/sudo ] || { echo "no sudo in this image"; exit 2; }
[ -f etc/sudoers ] && [ ! -L etc/sudoers ] || fail "/etc/sudoers is missing: nothing to look at"
grep -qE '^[@#]includedir[[:space:]]+/etc/sudoers\.d[[:space:]]*$' etc/sudoers || fail "/etc/sudoers does not read /etc/sudoers.d"

# In the order of reading, without comments, with continued lines joined; sudo passes over names with a dot or a tilde.
others=$(find etc/sudoers.d -xdev -type f ! -name '*.*' ! -name '*~' | sort)
[ -z "$(find etc/sudoers.d -xdev -type l)" ] || fail "a link in /etc/sudoers.d: $(find etc/sudoers.d -xdev -type l)"
lines() { sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' "$1" | grep -vE '^[[:space:]]*(#|$)' || true; }
all=$(for file in etc/sudoers $others; do lines "$file"; done)
# The last of a setting's mentions counts.
last() { printf '%s\n' "$all" | grep -E '^[[:space:]]*Defaults[[:space:]]' | grep -oE "$1" | tail -n 1; }
[ "$(last '!?\buse_pty\b')" = use_pty ] || fail "use_pty is not set, or taken back"
[ "$(last '!?\benv_reset\b')" = env_reset ] || fail "env_reset is not set, or taken back"
log=$(last '!?\blogfile *=? *"?[^" ,]*' | sed 's/.*= *"\{0,1\}//')
[ "$log" = "$PARAM_LOGFILE" ] || fail "the log file is '${log:-none}', not $PARAM_LOGFILE"
[ ! -e ".$PARAM_LOGFILE" ] ||
    [ -z "$(find ".$PARAM_LOGFILE" \( -type l -o ! -uid 0 -o -perm /0077 \))" ] || fail "$PARAM_LOGFILE can be read by others than root"
timeout=$(last 'timestamp_timeout *= *-?[0-9.]+' | sed 's/.*= *//')
case $timeout in '' | -* | *.*) fail "timestamp_timeout is '${timeout:-not set}'" ;; esac
[ "$timeout" -le "$PARAM_TIMEOUT" ] || fail "timestamp_timeout is $timeout minutes, more than $PARAM_TIMEOUT"

bad=$(
    printf '%s\n' "$all" | grep -E '!authenticate|Defaults.*(visiblepw|!requiretty.*targetpw|rootpw|targetpw|runaspw)' || true
    for file in etc/sudoers $others; do
        if lines "$file" | grep -q 'NOPASSWD'; then
            printf '%s\n' "$PARAM_ALLOW_NOPASSWD" | grep -qxF -e "/$file" && [ "$LIVE" = 1 ] ||
                echo "/$file gives rights without a password"
        fi
    done
    find etc/sudoers etc/sudoers.d -xdev \( ! -uid 0 -o ! -gid 0 -o -type f -perm /0337 -o -perm /0022 \) \
        -printf '/%p has mode and owner %m %U:%G\n'
)
[ -z "$bad" ] || fail "$bad"
[ "$LIVE" = 0 ] || visudo -c -q || fail "visudo refuses the rules"
free=$(for file in etc/sudoers $others; do if lines "$file" | grep -q NOPASSWD; then echo "/$file"; fi; done)
echo "use_pty, logged to $log, asked again after $timeout minutes; without a password: ${free:-nobody}"
