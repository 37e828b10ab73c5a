set -eu
sshd_or_end
allowed=$(printf '%s\n' "$sshd_files" | sed -n 's/^allowgroups //p' | tr ' ' '\n' | sort -u)
[ "$LIVE" = 0 ] || allowed=$(printf '%s\n' "$sshd_live" | sed -n 's/^allowgroups //p' | tr ' ' '\n' | sort -u)
[ -n "$allowed" ] || { echo "no AllowGroups: every account may log in"; exit 1; }
strange=$(printf '%s\n' "$allowed" | grep -vxF -e "$PARAM_GROUPS" || true)
[ -z "$strange" ] || { echo "AllowGroups lets others in: $strange"; exit 1; }
other=$(printf '%s\n' "$sshd_files" | grep '^match allow\(groups\|users\) ' || true)
[ -z "$other" ] || { echo "a Match block has its own list: $other"; exit 1; }
for group in $allowed; do
    grep -q "^$group:" etc/group || { echo "the group $group does not exist, so nobody is in it"; exit 1; }
done
printf 'groups that may log in: %s\n' "$(printf '%s' "$allowed" | tr '\n' ' ')"
