set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
for file in etc/passwd etc/shadow; do
    [ -s $file ] && [ ! -L $file ] || fail "/$file is missing: nothing to look at"
done
# In the booted machine people have the keys and passwords that it was given.
bad=$(
    if [ "$LIVE" = 0 ]; then
        awk -F: '$2 !~ /^[*!]/ {print $1 " has a password in /etc/shadow"}' etc/shadow
        find root home etc/ssh var/lib -xdev \( -name authorized_keys -o -name authorized_keys2 -o -path 'etc/ssh/authorized_keys/*' \) \
            ! -type d -size +0 -printf '/%p lets somebody in\n'
    fi
    # What a link says lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
    find etc/cloud -xdev -type l \( -name '*.cfg' -o -name '*.d' \) -printf '/%p is a link, and may say anything\n' 2>/dev/null || true
    files=$(find etc/cloud/cloud.cfg etc/cloud/cloud.cfg.d -xdev -type f \( -name '*.cfg' -o -name cloud.cfg \) 2>/dev/null | sort)
    [ -n "$files" ] || exit 0
    # shellcheck disable=SC2086
    grep -niHE '^[^#]*\b(plain_text_passwd|hashed_passwd|passwd|password|chpasswd|ssh_authorized_keys|ssh_import_id)[[:space:]]*:' $files |
        sed 's/\(^[^:]*:[0-9]*\):[^a-z_]*\([a-z_]*\).*/\/\1: \2 gives the same credential to every machine/'
    # shellcheck disable=SC2086
    grep -niHE '^[^#]*\block_passwd[[:space:]]*:[[:space:]]*["'\'']?(false|no|off)' $files | sed 's/\(^[^:]*:[0-9]*\):.*/\/\1: lock_passwd leaves an account open/'
    # The last file counts.
    for want in "disable_root true" "ssh_pwauth false" "ssh_deletekeys true"; do
        # shellcheck disable=SC2086
        has=$(sed -n "s/^${want% *}[[:space:]]*:[[:space:]]*//p" $files | tail -n 1 | tr '[:upper:]' '[:lower:]')
        [ "$has" = "${want#* }" ] || echo "cloud-init's ${want% *} is ${has:-not set}, not ${want#* }"
    done
)
[ -z "$bad" ] || fail "$bad"
echo "$(wc -l < etc/shadow) accounts without a password of the image's, no key that lets in, cloud-init gives no credential"
