set -eu
cd "$ROOT"
for file in etc/passwd etc/group; do
    [ -s $file ] && [ ! -L $file ] || { echo "/$file is missing: nothing to look at"; exit 1; }
done
bad=$(
    for file in $(find etc/sudoers etc/sudoers.d usr/local/etc/sudoers usr/local/etc/sudoers.d -xdev ! -type d 2>/dev/null | sort); do
        [ ! -L "$file" ] || { echo "/$file is a link"; continue; }
        sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' "$file" | grep -nE '^[^#]*(NOPASSWD|!authenticate)' | sed "s#^#/$file:#" || true
    done
    # A link's content lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
    find etc/doas.conf etc/doas.d usr/local/etc/doas.conf etc/polkit-1/rules.d usr/local/share/polkit-1/rules.d -xdev -type l \
        -printf '/%p is a link\n' 2>/dev/null || true
    find etc/polkit-1 -maxdepth 0 -type l -printf '/%p is a link\n' 2>/dev/null || true
    find etc/doas.conf etc/doas.d usr/local/etc/doas.conf -xdev -type f -exec grep -nHE '^[^#]*permit.*nopass' -- {} + 2>/dev/null | sed 's#^#/#' || true
    find etc/polkit-1/rules.d usr/local/share/polkit-1/rules.d -xdev -type f -exec grep -nHE 'Result\.YES' -- {} + 2>/dev/null | sed 's#^#/#' || true
    # What a package brought there is the package's own; package-files-intact holds that it was not changed.
    for file in $(find usr/share/polkit-1/rules.d -xdev ! -type d 2>/dev/null | sort); do
        grep -qxF "/$file" var/lib/dpkg/info/*.list 2>/dev/null || echo "/$file belongs to no package"
    done
    # Some programs take +0 or 00 for 0: only numbers that are written plainly are another.
    awk -F: 'NF > 1 && $1 != "root" && $3 !~ /^[1-9][0-9]*$/ {print "/" FILENAME ": " $1 " has root'"'"'s number, or no plain one"}' etc/passwd etc/group
    awk -F: -v groups="$PARAM_GROUPS" '
        BEGIN {split(groups, names, "\n"); for (i in names) barred[names[i]] = 1}
        $1 in barred && $4 != "" {print "/etc/group: " $1 " has the members " $4}' etc/group
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(wc -l < etc/passwd) accounts, and no rule that makes one of them root"
