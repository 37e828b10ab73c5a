set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/shells ] && [ ! -L etc/shells ] || fail "/etc/shells is missing: nothing to look at"
shells=$(grep -vE '^[[:space:]]*(#|$)' etc/shells || true)
[ -n "$shells" ] || fail "/etc/shells names no shell"
bad=$(printf '%s\n' "$shells" | grep -E '/(nologin|false|true)[[:space:]]*$' || true)
[ -z "$bad" ] || fail "in /etc/shells, and no shell: $bad"
strange=$(printf '%s\n' "$shells" | grep -vE '^/(usr/)?bin/[a-z]+$' || true)
[ -z "$strange" ] || fail "in /etc/shells, and not in /bin or /usr/bin: $strange"
printf 'login shells: %s\n' "$(printf '%s' "$shells" | tr '\n' ' ')"
