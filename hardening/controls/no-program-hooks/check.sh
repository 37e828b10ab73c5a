# What a package brought counts as its own, configuration files too: dpkg's lists name both.
set -eu
cd "$ROOT"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
brought_in "$folder"
tree_in "$folder" > "$folder/names"
files=$(grep -c '^f' "$folder/tree" || true)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
sort -u "$folder/listed" "$folder/declared" > "$folder/packaged"
# Neither a package's nor the definition's, and no link to such a file, to nothing or to a unit, which is looked at itself.
awk -v tree="$folder/tree" -v list="$folder/packaged" "$follow"'
    END {
        for (path in there)
            if (there[path] != "d" && !(path in listed && !(path in link && is_folder(end(path)))) && !(path in link && (brought(path, 1) || end(path) ~ /^(dev\/null|etc\/systemd\/(system|user)\/[^\/]+)$/)))
                print path
    }' \
    "$folder/tree" "$folder/packaged" | sort > "$folder/unlisted"

# not_packaged WHAT PLACE…: asks for files in these places that no package brought; places_found answers.
not_packaged() {
    what=$1
    shift
    printf "$what\t%s\n" "$@" >> "$folder/places"
}

places_found() {
    awk -F '\t' '
        FILENAME != "-" { what[$2] = $1; next }
        {
            place = $0
            while (!(place in what) && sub(/\/[^\/]*$/, "", place)) continue
            if (place in what) print what[place] "\t" $0
        }' "$folder/places" - < "$folder/unlisted" | while IFS='	' read -r what file; do
        if [ -s "$file" ] || [ -L "$file" ]; then echo "/$file: $what"; fi
    done
}

# lines WHAT PATTERN PLACE…: lines of these places that match, in any case of letters, but for comments.
lines() {
    what=$1 pattern=$2
    shift 2
    files=$(find "$@" -xdev -type f -exec grep -laiE -e "$pattern" -- {} + 2>/dev/null) || true
    [ -z "$files" ] || printf '%s\n' "$files" | sort -u | sed "s#^\(\./\)\{0,1\}\(.*\)\$#/\2: $what#"
}

# Settings that are not as their package brought them, and lines of them that name code or settings that everybody may write.
# Application code mentions such paths too often to be looked at; rules of AppArmor and tmpfiles.d are about them.
open_settings() {
    awk -F '\t' '
        $1 != "f" || $2 ~ /^(usr\/[^l]|usr\/lib|(proc|sys|dev|run|tmp|var\/(tmp|cache|log|lib\/dpkg)|etc\/(apparmor\.d|tmpfiles\.d|alternatives|ssl\/certs))\/)|\/(node_modules|(site|dist)-packages|gems|vendor|\.github|\.circleci)\// { next }
        $2 ~ /^etc\/|\.(conf|cnf|ini|cfg|toml|ya?ml|service|properties)$|rc$/ { print $2 }' "$folder/tree" | sort | tr '\n' '\0' |
        xargs -0 -r grep -laE '/(tmp|shm)' -- 2>/dev/null | while IFS= read -r file; do
            sum=$(md5sum < "$file")
            sum=${sum%% *}
            ! grep -qxF -e "$file" "$folder/listed" || ! grep -rsqF -e "$sum  $file" -e " /$file $sum" var/lib/dpkg/info var/lib/dpkg/status var/lib/dpkg/status.d || continue
            tr -d '\0' < "$file" | FILE="/$file" awk "$everybodys"'
                /^[ \t]*(#|;|\/\/|--|<!--|\/?\*)/ { next }
                {
                    sub(/[ \t]#[ \t].*/, ""); rest = " " plain($0); before = ""
                    while (next_path()) {
                        # The last word before it, or before the list that it stands in.
                        label = before; sub(/[^ \t="\047]*[:,;]$/, "", label)
                        runs = label ~ /(^|[ \t="\047:,])[|!][ \t"\047]*$|(`|\$\()$|(^|[ \t;&|"\047])(source|source-file|\.)[ \t]+["\047]?$/
                        sub(/[^A-Za-z0-9]+$/, "", label); sub(/^.*[^A-Za-z0-9_.-]/, "", label)
                        if (path ~ code ? path !~ /[*]$/ || !is_data(label) : runs || label == "PATH" || is_code(label) && path !~ passing)
                            print ENVIRON["FILE"] ": names code or settings that everybody may write: " path
                    }
                }'
        done || true
}

# open_code: scripts whose interpreter, and lists of folders of Python whose folder everybody may write.
open_code() {
    find . -xdev -type f \( -perm /111 -o -name '*.pth' -o -name '*.egg-link' \) -printf '%P\n' | sort | comm -23 - "$folder/listed" > "$folder/code"
    grep -vE '\.(pth|egg-link)$' "$folder/code" | tr '\n' '\0' | xargs -0 -r grep -aHm 1 '' -- |
        LC_ALL=C awk "$everybodys"'
            match($0, /:#!.*/) {
                file = substr($0, 1, RSTART - 1); rest = substr($0, RSTART, 300); sub(/^:#!/, " ", rest); rest = plain(rest); before = ""
                if (next_path()) print "/" file ": is run by an interpreter that everybody may write: " path
            }'
    grep -E '\.(pth|egg-link)$' "$folder/code" | tr '\n' '\0' | xargs -0 -r grep -aH '' -- |
        LC_ALL=C awk "$everybodys"'
            match($0, /\.(pth|egg-link):/) {
                file = substr($0, 1, RSTART + RLENGTH - 2); line = substr($0, RSTART + RLENGTH)
                if (line ~ /^[ \t]*#/) next
                base = file; sub(/[^\/]*$/, "", base)
                rest = " " plain(line ~ /^\.\.?\// ? "/" base line : line); before = ""
                if (next_path()) print "/" file ": adds modules that everybody may write: " path
            }'
}

loading='LD_PRELOAD|LD_AUDIT|LD_LIBRARY_PATH|GCONV_PATH|BASH_ENV|PROMPT_COMMAND|PERL5OPT|PYTHONSTARTUP|OPENSSL_CONF|OPENSSL_MODULES'
found=$(
    if [ -s etc/ld.so.preload ] || [ -L etc/ld.so.preload ]; then echo "/etc/ld.so.preload: is loaded into every program"; fi
    not_packaged "adds folders in which libraries are found" etc/ld.so.conf.d
    if [ -f etc/ld.so.conf ] && [ ! -L etc/ld.so.conf ] &&
        grep -qvE '^[[:space:]]*(include[[:space:]]+/etc/ld\.so\.conf\.d/\*\.conf[[:space:]]*)?(#.*)?$' etc/ld.so.conf; then
        echo "/etc/ld.so.conf: adds folders in which libraries are found"
    fi
    for home in root home/* etc/skel; do
        for name in .bashrc .bash_profile .bash_login .bash_logout .profile .zshrc .zshenv .kshrc .pam_environment .config/fish \
            .config/systemd .config/autostart .xinitrc .xsessionrc .ssh/rc .ssh/config .gitconfig .vimrc .inputrc .lesskey .less .npmrc .pythonrc.py .psqlrc; do
            [ -e "$home/$name" ] || [ -L "$home/$name" ] || continue
            # A copy of what packages give to new accounts is theirs.
            ! cmp -s -- "$home/$name" "etc/skel/$name" || [ "$home" = etc/skel ] || continue
            ! cmp -s -- "$home/$name" "usr/share/base-files/dot$name" || continue
            not_packaged "runs when somebody logs in" "$home/$name"
        done
    done
    not_packaged "runs in every login shell" etc/profile.d etc/ssh/sshrc
    if [ -e etc/profile ] && ! cmp -s etc/profile usr/share/base-files/profile; then not_packaged "runs in every login shell" etc/profile; fi
    not_packaged "runs in every shell of its kind" etc/zsh etc/fish etc/csh.cshrc etc/csh.login etc/ksh.kshrc etc/bash.bash_logout etc/bash_completion.d etc/X11/Xsession.d etc/xdg/autostart
    not_packaged "is a unit that no package brought" etc/systemd/system etc/systemd/user usr/local/lib/systemd usr/local/share/systemd
    not_packaged "is read by programs that speak TLS" etc/ssl/openssl.cnf etc/ssl/openssl.cnf.d
    not_packaged "is loaded by programs that speak TLS or Kerberos" etc/gss etc/pkcs11 usr/share/p11-kit/modules
    not_packaged "runs in every session of psql" etc/postgresql-common/psqlrc etc/psqlrc
    not_packaged "runs with every program of that language" var/lib/gems/*/plugins
    not_packaged "runs programs of its own" etc/syslesskey etc/sysless usr/local/etc/syslesskey
    lines "runs programs of its own" '^[[:space:]]*(\[hooks\]|[^#;]*=[[:space:]]*(!|python:|[~.]|/([^e]|e[^t]|etc/[^s])))' etc/mercurial | while IFS= read -r line; do
        name=${line%%: *}
        grep -qxF -e "${name#/}" "$folder/listed" || echo "$line"
    done
    if grep -qE '(\.tmux\.conf|\.my\.cnf|\.aws|	etc/(tmux\.conf|my\.cnf|mysql))' "$folder/tree"; then
        lines "runs programs of its own" '^[^#]*\b(run-shell|if-shell|pipe-pane|default-(command|shell))\b|^[^#]*#\(' . \( -name .tmux.conf -o -path ./etc/tmux.conf \)
        lines "loads a module into programs of MySQL" '^[[:space:]]*(loose[-_])?(plugin[-_](dir|load([-_]add)?)|default[-_]auth|init[-_]file)[[:space:]]*=' . \( -name .my.cnf -o -path './etc/my.cnf*' -o -path './etc/mysql/*' \)
        lines "runs a program for credentials" '^[[:space:]]*credential_process' . -path '*/.aws/*'
    fi
    lines "runs programs of its own" '^[[:space:]]*(\$include|[^#].*:[[:space:]]*["'\''].*\\([nr]|(C|Control)-[jm]|0?1[25]|x0?[ad]))' etc/inputrc
    lines "loads a module into sudo" '^[[:space:]]*(Plugin|Path)[[:space:]]' etc/sudo.conf
    open_settings
    open_code
    not_packaged "is applied when a machine boots" etc/tmpfiles.d usr/local/lib/tmpfiles.d etc/sysusers.d etc/cloud/cloud.cfg etc/cloud/cloud.cfg.d var/lib/cloud/scripts var/lib/cloud/seed
    not_packaged "lets programs be started by others" etc/dbus-1 etc/polkit-1 usr/local/share/dbus-1 usr/local/share/polkit-1 etc/xinetd.d
    not_packaged "decides who may log in" etc/pam.d etc/pam.conf
    not_packaged "runs as part of apt" etc/apt/apt.conf etc/apt/apt.conf.d etc/dpkg/dpkg.cfg.d
    lines "runs programs as part of apt" '^[^/#]*(Pre-Invoke|Post-Invoke(-Success)?|Pre-Install-Pkgs|pre-invoke|post-invoke|status-logger)' etc/apt/apt.conf.d etc/dpkg/dpkg.cfg.d |
        while IFS= read -r line; do name=${line%%:*}; grep -qxF -e "${name#/}" "$folder/packaged" || echo "$line"; done
    lines "runs a program at every login" '^[^#]*pam_(exec|script|python|perl)\.so' etc/pam.d
    lines "lets everybody in" '^[[:space:]]*-?auth[[:space:]]+(sufficient|\[[^]]*success=(done|ok|end)[^]]*\])[[:space:]]+pam_permit\.so' etc/pam.d
    lines "loads a module of another folder at every login" '^[^#]*[[:space:]]/[^[:space:]]*\.so' etc/pam.d usr/lib/pam.d
    lines "sets a variable that loads code into programs" "^[^#;]*\\b($loading)[[:space:]]*(=|DEFAULT|OVERRIDE)" etc/environment etc/environment.d usr/local/lib/environment.d \
        etc/default/locale etc/security/pam_env.conf etc/systemd/system.conf etc/systemd/system.conf.d etc/systemd/user.conf etc/systemd/user.conf.d
    lines "loads a library into programs that speak TLS" '^[[:space:]]*(dynamic_path|module|SO_PATH)[[:space:]]*=' etc/ssl/openssl.cnf
    not_packaged "runs when certificates are joined" etc/ca-certificates/update.d
    not_packaged "is a module that logins load" usr/lib/security usr/lib/x86_64-linux-gnu/security usr/lib/aarch64-linux-gnu/security
    find usr/lib usr/local/lib opt -xdev \( -path '*/python*/*.pth' -o -name sitecustomize.py -o -name usercustomize.py -o -name 'sitecustomize.p[lm]' \) \
        -size +0 -printf '%p\n' 2>/dev/null | sort -u | comm -23 - "$folder/packaged" | while IFS= read -r file; do
        # Those of setuptools and of virtualenv load a module of their own that lies beside them.
        case $file in *.pth) grep -E '^[[:space:]]*import[[:space:]]' -- "$file" | grep -qvxE "import _virtualenv|import os; *var = 'SETUPTOOLS_USE_DISTUTILS'; *enabled = os\.environ\.get\(var, '(local|stdlib)'\) == 'local'; *enabled and __import__\('_distutils_hack'\)[; ]*" || continue ;; esac
        echo "/$file: runs with every program of that language"
    done
    not_packaged "runs when a device appears" etc/udev/rules.d usr/lib/udev/rules.d usr/local/lib/udev/rules.d
    lines "runs a program when a module loads" '^[[:space:]]*install[[:space:]]+[^[:space:]]+[[:space:]]+/?' etc/modprobe.d usr/lib/modprobe.d usr/local/lib/modprobe.d | while IFS= read -r line; do
        name=${line%%: *}
        ! grep -E '^[[:space:]]*install[[:space:]]' -- "${name#/}" | grep -qvE '^[[:space:]]*install[[:space:]]+[^[:space:]]+[[:space:]]+(/usr)?/bin/(false|true)[[:space:]]*$' || echo "$line"
    done
    not_packaged "is a kind of program that the kernel starts by another" etc/binfmt.d usr/lib/binfmt.d usr/local/lib/binfmt.d
    lines "has the kernel run a program" '^-?kernel[./](modprobe|hotplug|poweroff_cmd|core_pattern[[:space:]]*=[[:space:]]*\|)' etc/sysctl.conf etc/sysctl.d usr/lib/sysctl.d usr/local/lib/sysctl.d |
        while IFS= read -r line; do name=${line%%:*}; grep -qxF -e "${name#/}" "$folder/packaged" || echo "$line"; done
    not_packaged "runs at boot" etc/rc.local etc/inittab etc/init.d etc/rc[0-6S].d etc/logrotate.d etc/network/if-up.d etc/network/if-pre-up.d etc/NetworkManager/dispatcher.d \
        etc/networkd-dispatcher etc/dhcp/dhclient-enter-hooks.d etc/dhcp/dhclient-exit-hooks.d usr/lib/systemd/system-generators \
        etc/systemd/system-generators usr/local/lib/systemd/system-generators etc/systemd/user-generators usr/lib/systemd/user-generators \
        usr/local/lib/systemd/user-generators usr/lib/systemd/system-environment-generators usr/lib/systemd/user-environment-generators usr/lib/systemd/system-shutdown usr/lib/systemd/system-sleep \
        etc/update-motd.d etc/kernel/*inst.d etc/kernel/*rm.d etc/kernel/install.d etc/grub.d etc/initramfs-tools/hooks etc/initramfs-tools/scripts
    # What a link says lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
    awk -F '\t' '$1 == "l" && ($2 ~ /(^|\/)\.(aws(\/.*)?|my\.cnf)$/ ||
        $2 ~ "^etc/(ld\\.so\\.conf|(pam|apt/apt\\.conf|dpkg/dpkg\\.cfg|modprobe)\\.d|ssh/ssh_config(\\.d)?|gitconfig|krb5\\.conf(\\.d)?|my\\.cnf)(/|$)") {print $2}' "$folder/tree" |
        sort -u | comm -23 - "$folder/packaged" | sed 's#^.*$#/&: is a link, and may say anything#' || true
    find etc/mysql -xdev -type l 2>/dev/null | sort | comm -12 - "$folder/unlisted" | sed 's#^.*$#/&: is a link, and may say anything#' || true
    lines "runs a program in the place of a connection" '^[[:space:]]*"?((ProxyCommand|LocalCommand|KnownHostsCommand|PKCS11Provider|SecurityKeyProvider)["[:space:]=]|Match["[:space:]=].*exec)' etc/ssh/ssh_config etc/ssh/ssh_config.d
    find etc/ssh/ssh_config etc/ssh/ssh_config.d etc/krb5.conf etc/krb5.conf.d etc/my.cnf etc/mysql -xdev -type f -exec grep -HiE '^[[:space:]]*["!]?Include(dir)?["[:space:]=]' -- {} + 2>/dev/null |
        grep -viE ':[[:space:]]*!?Include(dir)?[[:space:]]+/etc/(ssh/ssh_config\.d/\*\.conf|krb5\.conf\.d/?|mysql/[a-z][a-z.]*/?)[[:space:]]*$' | sed 's#^\([^:]*\):.*$#/\1: reads settings of another place#' || true
    find etc/nginx etc/apache2 -xdev -type f -exec grep -HiE '^[[:space:]]*load_?module[[:space:]]' -- {} + 2>/dev/null |
        grep -viE 'load_?module[[:space:]]+([a-z0-9_]+[[:space:]]+)?["'\'']?(/usr/lib/|modules/)([^.]|\.[^.])*$' |
        sed 's#^\([^:]*\):.*$#/\1: loads a module from elsewhere than /usr/lib#' | sort -u || true
    lines "loads a module into programs that speak Kerberos" '^[[:space:]]*(module|plugin_base_dir)[[:space:]=]' etc/krb5.conf etc/krb5.conf.d
    lines "runs programs of its own" '^[[:space:]]*(hooksPath|fsmonitor|sshCommand|helper|pager|editor|askPass)[[:space:]]*=' etc/gitconfig
    # pam-auth-update makes the common ones.
    places_found | grep -v '^/etc/pam.d/common-[a-z-]*: decides' || true
)
bad=$(printf '%s\n' "$found" | grep . | cat "$folder/names" - | refused)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$files files, and every hook is a package's own"
