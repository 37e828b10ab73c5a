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
        find . -xdev ! -type d \( \
            \( -name authorized_keys -o -name authorized_keys2 -o -path './etc/ssh/authorized_keys/*' \) -size +0 \
            -printf '/%P lets somebody in\n' -o -path './var/lib/cloud/seed*' -printf '/%P is the user data of every machine\n' \)
    fi
    # What a link says lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
    find etc/cloud -xdev -type l \( -name '*.cfg' -o -name '*.d' \) -printf '/%p is a link, and may say anything\n' 2>/dev/null || true
    files=$(find etc/cloud/cloud.cfg etc/cloud/cloud.cfg.d -xdev -type f \( -name '*.cfg' -o -name cloud.cfg \) 2>/dev/null | sort)
    [ -n "$files" ] || exit 0
    # A # inside a word begins no comment, a key may stand in quotes, and cloud-init takes - for _ in some.
    text='^([^#]|[^#[:space:]]#+)*' after='["'\'']?[[:space:]]*:'
    key='(plain[-_]text[-_]passwd|hashed[-_]passwd|passwd|password|chpasswd|ssh[-_]authorized[-_]keys|ssh[-_]import[-_]id)'
    # shellcheck disable=SC2086
    grep -niHE "($text[^-_#[:alnum:]]|^)$key$after" $files |
        sed -E "s/^([^:]*:[0-9]*):(.*[^-_[:alnum:]])?$key$after.*/\\/\\1: \\3 gives the same credential to every machine/I"
    # shellcheck disable=SC2086
    grep -niHE "${text}lock[-_]passwd$after"'[[:space:]]*["'\'']?(false|no|off)' $files | sed 's/\(^[^:]*:[0-9]*\):.*/\/\1: lock_passwd leaves an account open/'
    key='(disable_root|ssh_pwauth|ssh_deletekeys)'
    # shellcheck disable=SC2086
    grep -niHE "$text[{,[:space:]][\"']?$key$after" $files |
        sed -E "s/^([^:]*:[0-9]*):.*$key$after.*/\\/\\1: \\2 must stand at the beginning of a line/I"
    # The last file counts.
    for want in "disable_root true" "ssh_pwauth false" "ssh_deletekeys true"; do
        # shellcheck disable=SC2086
        has=$(sed -nE "s/^[\"']?${want% *}$after[[:space:]]*//p" $files | tail -n 1 | tr '[:upper:]' '[:lower:]')
        [ "$has" = "${want#* }" ] || echo "cloud-init's ${want% *} is ${has:-not set}, not ${want#* }"
    done
)
[ -z "$bad" ] || fail "$bad"
echo "$(wc -l < etc/shadow) accounts without a password of the image's, no key that lets in, cloud-init gives no credential"
