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
loading='^(LD_[A-Z_0-9]+|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|HOSTALIASES|RESOLV_HOST_CONF|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|PS4|ZDOTDIR|PROMPT_COMMAND|PERL5OPT|PERL5LIB|PERLLIB|PERL5DB|PYTHON(PATH|STARTUP|HOME|INSPECT|BREAKPOINT|PLATLIBDIR|PYCACHEPREFIX|USERBASE)|NODE_OPTIONS|NODE_PATH|NODE_REPL_EXTERNAL_MODULE|RUBYOPT|RUBYLIB|LUA_(INIT|PATH|CPATH)[0-9_]*|TCLLIBPATH|R_PROFILE(_USER)?|R_ENVIRON(_USER)?|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|GIT_(SSH|SSH_COMMAND|EXTERNAL_DIFF|EXEC_PATH|TEMPLATE_DIR|PROXY_COMMAND|ASKPASS|EDITOR|PAGER|CONFIG[A-Z_0-9]*)|OPENSSL_(CONF|MODULES|ENGINES)|PHPRC|PHP_INI_SCAN_DIR|DOTNET_STARTUP_HOOKS|(CORECLR|COR)_(ENABLE_PROFILING|PROFILER[A-Z_0-9]*)|LESSOPEN|LESSCLOSE|PAGER|EDITOR|VISUAL|BROWSER|SSH_ASKPASS|SUDO_ASKPASS|APT_CONFIG|PIP_CONFIG_FILE|(NPM_CONFIG|npm_config)_(USER|GLOBAL|user|global)(CONFIG|config)|UV_CONFIG_FILE|CARGO_HOME|CURL_HOME|WGETRC|GTK_MODULES|GIO_EXTRA_MODULES|QT_PLUGIN_PATH|SSLKEYLOGFILE)='
# Variables that switch off the verification of servers or of packages, by what their names and values have in common.
off='=(0|no|off|false|none|never|disabled?)?$'
unverified() {
    printf '%s\n' "$found" | tr -d '"' | awk -v off="$off" '
        {
            name = toupper($0); sub(/=.*/, "", name); value = tolower(substr($0, length(name) + 2))
            isoff = ("=" value) ~ off
        }
        # git asks only whether it is set.
        name == "GIT_SSL_NO_VERIFY" ||
        name ~ /(REJECT_UNAUTHORIZED|VERIFY|STRICT_SSL|STRICTSSL|HTTPSVERIFY|CHECK_CERT|CONTENT_TRUST|TLS_REQCERT|TLSREQCERT|CHECKPOINT_SIGNATURE)/ && name !~ /(NO_?VERIFY|SKIP_?(TLS_?|SSL_?)?VERIFY|INSECURE|DISABLE)/ && (isoff || value ~ /allow/) ||
        name ~ /(NO_?VERIFY|SKIP_?(TLS_?|SSL_?)?VERIFY|INSECURE|ALLOW_?UNAUTH|DISABLE_?(TLS|SSL)|TRUSTED_?HOST|NOSUMDB|NOSUMCHECK)/ && !isoff ||
        name == "GOSUMDB" && isoff || name == "GOFLAGS" && value ~ /insecure/ ||
        name ~ /(CA_BUNDLE|CAINFO|CERT_FILE|CERT_DIR|CAPATH|CA_CERTS|_CERT|CAFILE)$/ && (value == "" || value ~ /^\/(dev|tmp|var\/tmp)(\/|$)/) ||
        name ~ /^((PIP|UV|NPM_CONFIG|YARN|PNPM|BUN|POETRY|CARGO|BUNDLE|GEM|CONDA|COMPOSER|HEX|PERL_CPANM)_.*|GOPROXY)$/ && name !~ /._PROXY$/ && value ~ /http:\/\// {
            print name
        }'
}
bad=$(
    if [ -L etc/environment ]; then echo "/etc/environment is a link, and may set anything"; fi
    printf '%s\n' "$found" | grep -E "$loading" | while IFS= read -r line; do
        printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "${line%%=*}" || echo "${line%%=*} is set: $line"
    done
    unverified | while IFS= read -r name; do
        printf '%s\n' "$PARAM_ALLOW" | grep -qixF -e "$name" || echo "$name switches verification off: $(printf '%s\n' "$found" | grep -i "^$name=" | head -n 1)"
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
echo "$(printf '%s\n' "$found" | grep -c . || true) variables, none of which loads or finds code of others, or switches verification off"
