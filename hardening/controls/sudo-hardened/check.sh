set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -e usr/bin/sudo ] || { echo "no sudo in this image"; exit 2; }
[ -f etc/sudoers ] && [ ! -L etc/sudoers ] || fail "/etc/sudoers is missing: nothing to look at"
# Another plugin, or another file of rules, would count in the place of what is looked at here.
[ ! -L etc/sudo.conf ] || fail "/etc/sudo.conf is a link, and may say anything"
if [ -f etc/sudo.conf ]; then
    more=$(grep -vE '^[[:space:]]*(#.*|Debug[[:space:]].*|Set[[:space:]]+(disable_coredump|group_source|max_groups|probe_interfaces)[[:space:]].*|Plugin[[:space:]]+sudoers_(policy|io|audit)[[:space:]]+sudoers\.so[[:space:]]*)?$' etc/sudo.conf || true)
    [ -z "$more" ] || fail "/etc/sudo.conf: $more"
fi
included='^[@#]includedir[[:space:]]+/etc/sudoers\.d[[:space:]]*$'
grep -qE "$included" etc/sudoers || fail "/etc/sudoers does not read /etc/sudoers.d"

# In the order of reading, without comments, with continued lines joined; sudo passes over names with a dot or a tilde.
others=$(find etc/sudoers.d -xdev -type f ! -name '*.*' ! -name '*~' | sort)
[ -z "$(find etc/sudoers.d -xdev -type l)" ] || fail "a link in /etc/sudoers.d: $(find etc/sudoers.d -xdev -type l)"
# shellcheck disable=SC2086
more=$(grep -hE '^[[:blank:]]*(@include|#include(dir)?[[:blank:]])' etc/sudoers $others | grep -vE "$included" || true)
[ -z "$more" ] || fail "sudo also reads files that are not looked at: $more"
# A # begins a comment unless a number follows, which is an account; no comment is continued.
lines() {
    sed -E -e ':a' -e 's/^(([^"#\\]|\\.|"(\\.|[^"\\])*"|#-?[0-9])*)#([^-0-9].*|-[^0-9].*)?$/\1/' \
        -e '/\\[[:blank:]]*$/{N;s/\\[[:blank:]]*\n//;ba' -e '}' -e 's/[[:blank:]]+/ /g; s/(! ?)+/!/g; /^ ?$/d' "$@"
}
all=$(for file in etc/sudoers $others; do lines "$file"; done; sed '0,/^[@#]includedir/d' etc/sudoers | lines)
# The last of a setting's mentions counts: what follows the @includedir is read after those files.
last() { printf '%s\n' "$all" | grep -E '^[[:space:]]*Defaults[[:space:]]' | grep -oE "$1" | tail -n 1; }
[ "$(last '!?\buse_pty\b')" = use_pty ] || fail "use_pty is not set, or taken back"
[ "$(last '!?\benv_reset\b')" = env_reset ] || fail "env_reset is not set, or taken back"
log=$(last '!?\blogfile *=? *"?[^" ,]*' | sed 's/.*= *"\{0,1\}//')
[ "$log" = "$PARAM_LOGFILE" ] || fail "the log file is '${log:-none}', not $PARAM_LOGFILE"
[ ! -e ".$PARAM_LOGFILE" ] ||
    [ -z "$(find ".$PARAM_LOGFILE" \( -type l -o ! -uid 0 -o -perm /0077 \))" ] || fail "$PARAM_LOGFILE can be read by others than root"
timeout=$(last 'timestamp_timeout *= *"?-?[0-9.]+' | sed 's/.*= *"\{0,1\}//')
case $timeout in '' | -* | *.*) fail "timestamp_timeout is '${timeout:-not set}'" ;; esac
[ "$timeout" -le "$PARAM_TIMEOUT" ] || fail "timestamp_timeout is $timeout minutes, more than $PARAM_TIMEOUT"

# shellcheck disable=SC2086
free=$(grep -lE '^[[:blank:]]*([^#[:blank:]]|#-?[0-9]).*NOPASSWD|^[[:blank:]]*NOPASSWD' etc/sudoers $others | sed 's,^,/,' || true)
bad=$(
    printf '%s\n' "$all" | grep -E '!authenticate|Defaults.*(visiblepw|!requiretty.*targetpw|rootpw|targetpw|runaspw|exempt_group|pam_(login_)?service|!log_allowed|!tty_tickets|timestamp_type *= *"?global)' || true
    printf '%s\n' "$all" | grep -E 'Defaults.*env_keep.*[ ="](LD_|BASH_ENV|PERL|PYTHON|RUBY|NODE_|\*)|Defaults.*[ ,]setenv( |,|$)|(^|[^A-Z])SETENV ?:' | sed 's/^ */variables of the caller load code: /' || true
    printf '%s\n' "$all" | sed -nE '/^ ?Defaults[:@!>].*(use_pty|env_reset|logfile|timestamp_timeout)/s/^ ?/not the same for everyone: /p'
    for file in $free; do
        printf '%s\n' "$PARAM_ALLOW_NOPASSWD" | grep -qxF -e "$file" && [ "$LIVE" = 1 ] ||
            echo "$file gives rights without a password"
    done
    find etc/sudoers etc/sudoers.d -xdev \( ! -uid 0 -o ! -gid 0 -o -type f -perm /0337 -o -perm /0022 \) \
        -printf '/%p has mode and owner %m %U:%G\n'
)
[ -z "$bad" ] || fail "$bad"
[ "$LIVE" = 0 ] || visudo -c -q || fail "visudo refuses the rules"
echo "use_pty, logged to $log, asked again after $timeout minutes; without a password: ${free:-nobody}"
