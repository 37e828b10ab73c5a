# PAM's stacks in /etc/pam.d, as Debian makes them out of /usr/share/pam-configs. Stands before a script.

# MODULE FILE: has the stacks made again where FILE (below etc/pam.d) does not name MODULE. The image's own tool does it,
# so that modules which packages bring later find their place, and what is here survives their updates.
pam_add() {
    [ -x "$ROOT/usr/sbin/pam-auth-update" ] && [ -f "$ROOT/etc/pam.d/$2" ] && [ ! -L "$ROOT/etc/pam.d/$2" ] || return 0
    ! grep -q "^[^#]*[[:space:]]$1" "$ROOT/etc/pam.d/$2" || return 0
    if [ "$(realpath -- "$ROOT")" = / ]; then
        DEBIAN_FRONTEND=noninteractive pam-auth-update --package
    else
        DEBIAN_FRONTEND=noninteractive chroot "$ROOT" /usr/sbin/pam-auth-update --package
    fi
    rm -f -- "$ROOT"/var/cache/debconf/*-old
}

# FILE KIND: its lines of KIND (auth, account, password; an expression), or nothing where there is no such file. As PAM
# reads them: without comments, each continued line as one, and the KIND in any case.
pam_lines() {
    [ -f "etc/pam.d/$1" ] && [ ! -L "etc/pam.d/$1" ] || return 0
    awk -v kind="$2" '
        { comment = sub(/#.*/, ""); line = joined $0; joined = "" }
        !comment && sub(/\\[ \t]*$/, " ", line) { joined = line; next }
        tolower(line) ~ ("^[ \t[]*-?" kind "]?[ \t]") { print line }' "etc/pam.d/$1"
}
