# IMAGE_CONFIG is the image's configuration, one value a line; /etc/environment is read where somebody logs in.
set -eu
cd "$ROOT"
grep -q '"config"' "$IMAGE_CONFIG" || { echo "no image configuration: nothing to look at"; exit 1; }
variables() {
    sed -nE '/^  "Env": \[/,/^  \]/s/^   "(.*)",?$/\1/p' "$IMAGE_CONFIG"
    if [ -f etc/environment ] && [ ! -L etc/environment ]; then
        sed -nE 's/^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*=)"?([^"]*)"?.*/\2\3/p' etc/environment
    fi
}
found=$(variables)
loading='^(LD_PRELOAD|LD_AUDIT|LD_LIBRARY_PATH|GCONV_PATH|LOCPATH|BASH_ENV|ENV|PROMPT_COMMAND|PERL5OPT|PERL5LIB|PERL5DB|PYTHONPATH|PYTHONSTARTUP|PYTHONHOME|PYTHONINSPECT|PYTHONBREAKPOINT|NODE_OPTIONS|NODE_PATH|RUBYOPT|RUBYLIB|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|GIT_SSH_COMMAND|GIT_EXTERNAL_DIFF|GIT_CONFIG_GLOBAL|OPENSSL_CONF|OPENSSL_MODULES|PHP_INI_SCAN_DIR|DOTNET_STARTUP_HOOKS|LESSOPEN|LESSCLOSE|PAGER|EDITOR|VISUAL|SSH_ASKPASS)='
bad=$(
    if [ -L etc/environment ]; then echo "/etc/environment is a link, and may set anything"; fi
    printf '%s\n' "$found" | grep -E "$loading" | while IFS= read -r line; do
        printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "${line%%=*}" || echo "${line%%=*} is set: $line"
    done
    printf '%s\n' "$found" | sed -n 's/^PATH=//p' | while IFS= read -r path; do
        case ":$path:" in *::*) echo "PATH holds an empty folder, which means the present one: $path" ;; esac
        printf '%s\n' "$path" | tr ':' '\n' | while IFS= read -r folder; do
            case $folder in '') continue ;; /*) ;; *) echo "PATH holds $folder, which does not begin with /: $path" && continue ;; esac
            at=$folder
            while [ "$at" != / ] && [ -n "$at" ]; do
                if [ -L ".$at" ]; then
                    case $(readlink -- ".$at") in /* | *..*) echo "PATH holds $folder, and $at is a link elsewhere" ;; esac
                elif [ -d ".$at" ]; then
                    find ".$at" -maxdepth 0 \( ! -uid 0 -o -perm -0002 -o \( -perm -0020 ! -gid 0 ! -gid 50 \) \) \
                        -printf "PATH holds $folder, and others than root may write to $at (mode %m, %U:%G)\n"
                fi
                at=$(dirname -- "$at")
            done
        done
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(printf '%s\n' "$found" | grep -c . || true) variables, none of which loads or finds code of others"
