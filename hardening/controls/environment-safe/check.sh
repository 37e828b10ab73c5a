# IMAGE_CONFIG is the image's configuration, one value a line; /etc/environment is read where somebody logs in.
set -eu
cd "$ROOT"
grep -q '"config"' "$IMAGE_CONFIG" || { echo "no image configuration: nothing to look at"; exit 1; }
variables() {
    sed -nE '/^  "Env": \[/,/^  \]/s/^   "(.*)",?$/\1/p' "$IMAGE_CONFIG"
    if [ -f etc/environment ] && [ ! -L etc/environment ]; then
        sed -nE 's/"//g; s/^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*=.*)/\2/p' etc/environment
    fi
}
found=$(variables)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
brought_in "$folder"
loading='^(BASH_FUNC_[^=]*|LD_[A-Z_0-9]+|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|HOSTALIASES|LOCALDOMAIN|RES_OPTIONS|RESOLV_HOST_CONF|GETCONF_DIR|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|PS4|ZDOTDIR|PROMPT_COMMAND|PERL5OPT|PERL5LIB|PERLLIB|PERL5DB|PYTHON(PATH|STARTUP|HOME|INSPECT|BREAKPOINT|PLATLIBDIR|PYCACHEPREFIX|USERBASE)|NODE_OPTIONS|NODE_PATH|NODE_REPL_EXTERNAL_MODULE|RUBYOPT|RUBYLIB|LUA_(INIT|PATH|CPATH)[0-9_]*|TCLLIBPATH|R_PROFILE(_USER)?|R_ENVIRON(_USER)?|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|GIT_(SSH|SSH_COMMAND|EXTERNAL_DIFF|EXEC_PATH|TEMPLATE_DIR|PROXY_COMMAND|ASKPASS|ALLOW_PROTOCOL|CONFIG[A-Z_0-9]*)|OPENSSL_(CONF|MODULES|ENGINES)|KRB5_CONFIG|GSS_MECH_CONFIG|SASL_(CONF_)?PATH|GNUTLS_SYSTEM_PRIORITY_FILE|LDAP(CONF|RC)|PG(SYSCONFDIR|SERVICEFILE)|PSQLRC|MYSQL_HOME|LIBMYSQL_PLUGINS?(_DIR)?|ODBC(SYSINI|INSTINI)|NETRC|AWS_CONFIG_FILE|TF_CLI_CONFIG_FILE|HGRCPATH|(RSYNC|CVS)_RSH|SVN_SSH|TAR_OPTIONS|MAKEFILES|JQ_LIBRARY_PATH|GUILE_LOAD_(COMPILED_)?PATH|PHPRC|PHP_INI_SCAN_DIR|DOTNET_STARTUP_HOOKS|(CORECLR|COR)_(ENABLE_PROFILING|PROFILER[A-Z_0-9]*)|LESSOPEN|LESSCLOSE|[A-Z_]*(PAGER|EDITOR)|VISUAL|BROWSER|VIMINIT|INPUTRC|BASH_LOADABLES_PATH|AWK(LIB)?PATH|ERL_[AZ]?FLAGS|ELIXIR_ERL_OPTIONS|MAGICK_CONFIGURE_PATH|SSH_ASKPASS|SUDO_ASKPASS|APT_CONFIG|PIP_CONFIG_FILE|(NPM_CONFIG|npm_config)_(USER|GLOBAL|user|global)(CONFIG|config)|UV_CONFIG_FILE|CARGO_HOME|CURL_HOME|WGETRC|GTK_MODULES|GIO_EXTRA_MODULES|QT_PLUGIN_PATH|SSLKEYLOGFILE)='
# Of variables that hold options those with any but these, which set sizes, logs and encodings. No option that names a file is here.
optional() {
    awk '
        BEGIN {
            size = "[0-9]+([.][0-9]+)?[kKmMgGtT%]?"
            only["JAVA_TOOL_OPTIONS"] = only["_JAVA_OPTIONS"] = only["JDK_JAVA_OPTIONS"] = "-(server|Xm[snx]" size "|Xss" size "|Xshare:(auto|off)|XX:[-+][A-Z][A-Za-z0-9]*|XX:[A-Z][A-Za-z0-9]*=" size \
                "|D(file|sun[.]jnu|(sun[.])?std(out|err))[.]encoding=[A-Za-z0-9_-]+|Duser[.](timezone|language|country)=[A-Za-z0-9_/+-]+" \
                "|Djava[.](awt[.]headless|net[.]preferIPv[46](Stack|Addresses))=(true|false)|Djava[.]security[.]egd=file:/dev/([.]/)?u?random" \
                "|Djava[.]io[.]tmpdir=[^@]+|XX:HeapDumpPath=[^@]+|Xlog(gc)?:[^@]+)"
            only["NODE_OPTIONS"] = "--(max[-_](old[-_]space|semi[-_]space|http[-_]header)[-_]size=[0-9]+|enable-source-maps|no-(warnings|deprecation)|trace-(warnings|deprecation|uncaught)" \
                "|unhandled-rejections=[a-z-]+|dns-result-order=[a-z0-9]+|use-openssl-ca)"
            only["RUBYOPT"] = "(-w|-W[0-2]?|-W:(no-)?[a-z_]+|--(yjit|jit)|-EUTF-8)"
            only["ERL_FLAGS"] = only["ERL_AFLAGS"] = only["ERL_ZFLAGS"] = only["ELIXIR_ERL_OPTIONS"] = "([+][A-Za-z]+|[0-9:]+|[a-z]+)"
            only["GIT_ALLOW_PROTOCOL"] = "((file|git|https?|ssh):?)+"; only["INPUTRC"] = "/etc/inputrc"; only["PAGER"] = "(cat|less|more|nano|vim?|-[FRX]+)"
            only["GLIBC_TUNABLES"] = "(:?glibc[.]malloc[.][a-z_]+=[0-9]+)+"
            # They name a file or code, or let classes pass unchecked.
            never = "^-XX:[-+]?(On(Error|OutOfMemoryError)|Flags|Relax|[A-Za-z0-9]*(File|Path|Agent|Archive|Command|JVMCI|ManagementServer|Verif))"
        }
        {
            name = $0; sub(/=.*/, "", name); count = split(substr($0, length(name) + 2), words, / +/); sub(/^.*(EDITOR|PAGER|VISUAL)$/, "PAGER", name); loads = !(name in only)
            for (i = 1; i <= count && !loads; i++) loads = words[i] != "" && (words[i] !~ ("^" only[name] "$") || words[i] ~ never && words[i] !~ /^-XX:HeapDumpPath=/)
            if (loads) print
        }'
}
# Variables that switch off the verification of servers or of packages, by what their names and values have in common.
off='=(0|no|off|false|none|never|disabled?)?$'
unverified() {
    printf '%s\n' "$found" | tr -d '"' | awk -v off="$off" '
        # Whether a value names authorities that the control ca-certificates looks at, or files of packages.
        function trusted(paths,    parts, i) {
            for (i = split(paths, parts, ":"); i; i--)
                if (parts[i] !~ /^(\/etc\/ssl\/certs(\/|\/ca-certificates\.crt)?|\/usr\/lib\/ssl\/(certs|cert\.pem)|system)$/ && !(parts[i] ~ /\.(pem|crt)$/ && substr(parts[i], 2) in listed))
                    return 0
            return 1
        }
        FILENAME != "-" { listed[$0]; next }
        {
            name = toupper($0); sub(/=.*/, "", name); value = tolower(substr($0, length(name) + 2))
            isoff = ("=" value) ~ off; what = "switches verification off"
        }
        # git asks only whether it is set.
        name == "GIT_SSL_NO_VERIFY" ||
        name ~ /(REJECT_UNAUTHORIZED|VERIFY|STRICT_SSL|STRICTSSL|HTTPSVERIFY|CHECK_CERT|CONTENT_TRUST|TLS_REQCERT|TLSREQCERT|CHECKPOINT_SIGNATURE|SIGNATURE_VERIFI|HOST_KEY_CHECK|ENDPOINT_IDENTIFICATION|INTEGRITY_KEYS)/ && name !~ /(NO_?VERIFY|SKIP_?(TLS_?|SSL_?)?VERIFY|INSECURE|DISABLE)/ && (isoff || value ~ /allow/) ||
        name ~ /(NO_?VERIFY|SKIP_?(TLS_?|SSL_?)?VERIFY|INSECURE|ALLOW_?UNAUTH|UNSAFE_HTTP|UNSAFE_REGISTRY|GALAXY_IGNORE|DISABLE_?(TLS|SSL|[A-Z_]*(VERIFI?|VALIDATION))|TRUSTED_?HOST|NOSUMDB|NOSUMCHECK)/ && !isoff ||
        name == "GOSUMDB" && isoff || name == "GOFLAGS" && value ~ /insecure/ ||
        # prefer is what PostgreSQL does anyway.
        name == "PGSSLMODE" && value ~ /^(disable|allow)$/ ||
        name ~ /(OPTS|OPTIONS|ARGS)$/ && value ~ /ssl\.(insecure|allowall)=true|hostnameverification=true|dependency\.verification=off/ ||
        name ~ /(CA_BUNDLE|CAINFO|CERT_FILE|CERT_DIR|CAPATH|CA_CERTS|_CERT|CAFILE)$/ && (isoff || value ~ /^\/(dev|tmp|var\/tmp)(\/|$)/) ||
        name ~ /^((PIP|UV|NPM_CONFIG|YARN|PNPM|BUN|POETRY|CARGO|BUNDLE|GEM|CONDA|COMPOSER|HEX|PERL_CPANM)_.*|GOPROXY)$/ && name !~ /._PROXY$/ && value ~ /http:\/\// {
            print name, what; next
        }
        name ~ /^(SSL_CERT_(FILE|DIR)|(CURL|AWS|REQUESTS)_CA_BUNDLE|(NODE_EXTRA|HTTPLIB2)_CA_CERTS|(GIT_SSL|CARGO_HTTP)_CA(INFO|PATH)|(PIP|DENO)_CERT|PGSSLROOTCERT|NPM_CONFIG_CA(FILE)?|BUNDLE_SSL_CA_CERT|COMPOSER_CA(FILE|PATH)|(PERL_LWP_SSL|HTTPS)_CA_(FILE|PATH|DIR)|GRPC_DEFAULT_SSL_ROOTS_FILE_PATH|LDAPTLS_CACERT(DIR)?)$/ &&
            !trusted(substr($0, length(name) + 2)) { print name, "names authorities that no package brought" }
        name ~ /(OPTS|OPTIONS|ARGS)$/ && value ~ /-(javaagent|agentpath|agentlib|xbootclasspath)[:\/]|-xrun|-xx:(onerror|onoutofmemoryerror|flags|vmoptionsfile)=|ssl\.truststore=|-djava\.security\.(policy|properties)|-dcom\.sun\.management\.jmxremote/ { print name, "loads code or authorities of others" }
        ' "$folder/listed" -
}
# Variables and their options that are called after code, homes, or folders in which code is searched; PATH and authorities are looked at by themselves.
open_paths() {
    printf '%s\n' "$found" | awk "$everybodys"'
        BEGIN {
            searched = "(^|_)([A-Z0-9]*(HOME|CONFIG|RC|BIN)|[A-Z0-9]+PATH|(GEM|BUNDLE|ROLES|COLLECTIONS|IMPORT|DEPOT|TYPELIB|JUPYTER)_PATH|(GIT|NVM|DENO|IPYTHON)_?DIR" \
                "|SETTINGS(_(FILE|PATH|DIR))?|GEMFILE|VIRTUAL_ENV|(PYENV|RBENV)_ROOT|(CATALINA|JETTY)_BASE|PREFIX|PIP_TARGET|CC|CXX)$|^_([CILR]|CP)$"
        }
        /^PATH=/ || /^[^=]*(CA_BUNDLE|CAINFO|CERT_FILE|CERT_DIR|CAPATH|CA_CERTS|_CERT|CAFILE)=/ { next }
        {
            name = $0; sub(/=.*/, "", name); option = ""; open = 0
            count = split(plain(substr($0, length(name) + 2)), words, /[ \t"\047\\]+/)
            for (i = 1; i <= count && !open; i++) {
                rest = " " words[i]; before = ""
                while (!open && next_path()) {
                    label = words[i] ~ /^(-|[A-Za-z_][A-Za-z0-9_.]*=)/ ? before : option != "" ? option : name
                    open = path ~ code || path ~ /^-[CILR]/ || path !~ passing && (is_code(label) || word_of(label) ~ searched && !is_data(label))
                }
                option = words[i] ~ /^-[^=\/]*$/ ? words[i] : ""
            }
            if (open) print
        }'
}
groups=$(foreign 0 50)
bad=$(
    if [ -L etc/environment ]; then echo "/etc/environment is a link, and may set anything"; fi
    printf '%s\n' "$found" | grep -E "$loading" | optional | while IFS= read -r line; do
        printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "${line%%=*}" || echo "${line%%=*} is set: $line"
    done
    open_paths | while IFS= read -r line; do
        printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "${line%%=*}" || echo "${line%%=*} names what everybody may write to: $line"
    done
    unverified | while read -r name what; do
        printf '%s\n' "$PARAM_ALLOW" | grep -qixF -e "$name" || echo "$name $what: $(printf '%s\n' "$found" | grep -i "^$name=" | head -n 1)"
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
                    find ".$at" -maxdepth 0 \( ! -uid 0 -o -perm -0002 -o \( -perm -0020 $groups \) \) \
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
