set -eu
cd "$ROOT"
file=etc/pam.d/common-password
[ -f $file ] && [ ! -L $file ] || exit 0
grep -qE '^password.*pam_unix\.so.*[[:space:]]yescrypt([[:space:]]|$)' $file ||
    sed -i -E -e '/^password.*pam_unix\.so/s/[[:space:]](md5|bigcrypt|sha256|sha512|blowfish|gost_yescrypt)\b//g' \
        -e '/^password.*pam_unix\.so/s/$/ yescrypt/' $file
