# What apt makes of its configuration in the tree, told by apt itself. Stands in $ROOT.

# apt_settings: a line `KEY "VALUE";` for each setting. Exit status 1, and lines that say why, where files of another place
# count, of which nothing is known. Nothing that the image names is started: apt asks dpkg for architectures unless it is told.
apt_settings() {
    command -v apt-config >/dev/null || { echo "apt-config is not installed on this host: nothing could be looked at"; return 1; }
    unread=$(
        find etc/apt -maxdepth 0 -type l -printf '/%p is a link, and may say anything\n'
        find etc/apt/apt.conf etc/apt/apt.conf.d -xdev -type l -printf '/%p is a link, and may say anything\n' 2>/dev/null || true
        find etc/apt/apt.conf etc/apt/apt.conf.d -xdev -type f -exec grep -lF '#include' {} + 2>/dev/null | sed 's,.*,/& includes another file,' || true
    )
    [ -z "$unread" ] || { echo "$unread"; return 1; }
    apt_file=$(mktemp)
    printf 'Dir "%s";\n' "$PWD" > "$apt_file"
    apt_dump=$(APT_CONFIG=$apt_file apt-config -o APT::Architectures::=none dump) && apt_done=0 || apt_done=$?
    rm -f "$apt_file"
    [ "$apt_done" = 0 ] || { echo "apt cannot read its configuration"; return 1; }
    unread=$(printf '%s\n' "$apt_dump" | PLACE=$PWD awk '
        BEGIN {
            usual["dir"] = ENVIRON["PLACE"]; usual["dir::etc"] = "etc/apt"; usual["dir::etc::main"] = "apt.conf"
            usual["dir::etc::parts"] = "apt.conf.d"; usual["dir::etc::sourcelist"] = "sources.list"
            usual["dir::etc::sourceparts"] = "sources.list.d"; usual["dir::bin::dpkg"] = "/usr/bin/dpkg"
            usual["dir::bin::methods"] = "/usr/lib/apt/methods"
            usual["rootdir"] = usual["dir::bin::gpgv"] = usual["dir::bin::sqv"] = usual["apt::key::gpgvcommand"] = ""
        }
        {
            key = tolower($1); sub(/^binary::[^:]+::/, "", key); value = substr($0, length($1) + 3); sub(/";$/, "", value)
            if (key in usual && value != usual[key]) print $1 " leads apt to " value
        }')
    [ -z "$unread" ] || { echo "$unread"; return 1; }
    printf '%s\n' "$apt_dump"
}
