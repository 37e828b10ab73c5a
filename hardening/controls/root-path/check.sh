set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
[ -s etc/login.defs ] && [ ! -L etc/login.defs ] || fail "/etc/login.defs is missing: nothing to look at"
paths() {
    sed -n 's/^[[:space:]]*ENV_SUPATH[[:space:]]*\(PATH=\)\{0,1\}//p' etc/login.defs
    sed -n 's/^[^#]*\bPATH="\{0,1\}\([^";]*\)"\{0,1\}.*/\1/p' etc/environment etc/profile etc/bash.bashrc root/.profile \
        root/.bashrc root/.bash_profile root/.bash_login etc/profile.d/*.sh 2>/dev/null || true
    sed -n -e 's/^[[:space:]]*PATH[[:space:]].*\(DEFAULT\|OVERRIDE\)="\{0,1\}\([^"[:space:]]*\).*/\2/p' \
        -e 's/^[[:space:]]*DefaultEnvironment.*\bPATH="\{0,1\}\([^"[:space:]]*\).*/\1/p' \
        etc/security/pam_env.conf etc/systemd/system.conf etc/systemd/system.conf.d/*.conf 2>/dev/null || true
    cat etc/sudoers etc/sudoers.d/* 2>/dev/null | sed -n 's/^[^#]*secure_path="\{0,1\}\([^"]*\)"\{0,1\}.*/\1/p' || true
    [ "$LIVE" = 0 ] || printf '%s\n' "$PATH"
}
found=$(paths)
[ -n "$found" ] || fail "no PATH is set for root anywhere: nothing to look at"
line='
'
bad=''
set --
while IFS= read -r path; do
    case ":$path:" in *::*) bad="${bad}an empty folder, which means the present one, in $path$line" ;; esac
    rest=$path:
    while [ -n "$rest" ]; do
        folder=${rest%%:*} rest=${rest#*:}
        # /usr/games is for people, and what other variables hold is looked at where they are set.
        case $folder in '' | '$PATH' | /*games) continue ;; /*) ;; *) bad="$bad$folder in $path does not begin with /$line" && continue ;; esac
        if [ -L ".$folder" ]; then case $(readlink -- ".$folder") in /*) bad="$bad$folder leads elsewhere$line" && continue ;; esac; fi
        if [ -d ".$folder" ]; then set -- "$@" ".$folder"; else bad="$bad$folder in $path is no folder$line"; fi
    done
done <<END
$found
END
bad=$(
    {
        printf %s "$bad"
        [ $# = 0 ] || find -H "$@" -maxdepth 0 \( ! -uid 0 -o -perm /0022 \) -printf '%p has mode and owner %m %U:%G\n' | sed 's/^\.//'
    } | sort -u
)
[ -z "$bad" ] || fail "$bad"
mask=$(masks root/.bashrc root/.profile root/.bash_profile root/.bash_login | grep -vE '^0?[0-7]?[2367]7$' || true)
[ -z "$mask" ] || fail "root's own start-up files set umask $mask"
printf 'looked at, every folder is root'"'"'s alone:\n%s\n' "$(printf '%s\n' "$found" | sort -u)"
