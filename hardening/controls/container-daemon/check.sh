set -eu
cd "$ROOT"
[ -x usr/sbin/dockerd ] || [ -x usr/bin/dockerd ] || { echo "dockerd is not installed: nothing to look at"; exit 1; }
file=etc/docker/daemon.json
settings='' variables='(Environment|EnvironmentFile|PassEnvironment|DefaultEnvironment|ManagerEnvironment)'

# says KEY VALUE: says so where the file sets the key otherwise.
says() {
    printf '%s\n' "$settings" | grep -qxF "$1 $2" || echo "$1 is not $2 in /$file"
}

# mentions KEY: whether the file sets the key, in any case of letters.
mentions() {
    printf '%s\n' "$settings" | grep -qi "^$1[/ ]"
}

# options: says what else than ExecStart and /etc/default/docker, as the packages bring them, may give dockerd options.
options() {
    for part in docker.service/system/docker.service systemd/system.conf; do
        config_lines "${part#*/}" | grep -E "^[[:space:]]*$variables[[:space:]]*=" | sed 's/^[ \t]*//; s/%%//g' | tr -d "\"'" |
            grep -vE '^EnvironmentFile *= *-?/etc/default/docker *$' | grep -E '^EnvironmentFile *= *[^ ]|DOCKER_OPTS|\\|%' |
            sed -E "s/^(Pass|Default|Manager)?(Environment) *=.*/\1\2/; s/^/${part%%/*} gives dockerd options that are not read here: /" || true
    done
    for folder in etc run usr/local/lib usr/lib; do
        folder=$folder/systemd
        for drop_in in "$folder"/system/service.d/*.conf "$folder"/system.control/docker.service \
            "$folder"/system.control/service.d/*.conf "$folder"/system.control/docker.service.d/*.conf; do
            if grep -qsE "^[[:space:]]*($variables|Exec[A-Za-z]*)[[:space:]]*=" "$drop_in"; then
                echo "/$drop_in sets variables or commands of docker.service"
            fi
        done
    done
    if [ -L etc/default/docker ]; then echo "/etc/default/docker is a link: nothing is known of its options"; fi
    if [ -f etc/default/docker ] && [ ! -L etc/default/docker ]; then
        tr '\r' '\n' <etc/default/docker | grep -n DOCKER_OPTS | grep -vE '^[0-9]+:[[:space:]]*[#;]' | sed 's,:.*,,; s,^,more options in /etc/default/docker: line ,' || true
    fi
}

# shown WORDS: a command with the names of its options, and not what they are set to, which may be a password.
shown() {
    printf '%s\n' "$1" | tr ' ' '\n' | sed -nE '1p; 2,$s/^(-H=?(unix|tcp|fd):.*|--host=.*|(unix|tcp|fd):.*|[^-=]*dockerd|-[^=]*).*/\1/p' |
        tr '\n' ' ' | sed 's/ $//'
}

# starts WORDS: whether dockerd is started so that it listens on the sockets of docker.socket, as Debian or Docker's own
# package does; with TLS on ports besides.
starts() {
    words=$1
    if [ "$PARAM_TCP" = tls ]; then words=$(printf '%s' "$words" | sed -E 's, (-H|--host)[ =]tcp://[^ ]+,,g'); fi
    words=${words%' $DOCKER_OPTS'}
    case ${words%%dockerd *} in /usr/bin/ | /usr/sbin/) ;; *) return 1 ;; esac
    [ "${words#*dockerd }" = "-H fd:// --containerd=/run/containerd/containerd.sock" ]
}

# set_as_asked: says which of the settings is another.
set_as_asked() {
    says icc false
    says live-restore true
    says no-new-privileges true
    says userland-proxy false
    says log-driver '"local"'
    says log-opts/max-size "\"$PARAM_LOG_SIZE\""
    for limit in 'Name "core"' 'Hard 0' 'Soft 0'; do says "default-ulimits/core/${limit% *}" "${limit#* }"; done
    [ "$PARAM_USERNS_REMAP" = off ] || says userns-remap "\"$PARAM_USERNS_REMAP\""
    if mentions log-level; then says log-level '"info"'; fi
    if mentions debug; then says debug false; fi
    [ "$PARAM_TCP" = tls ] || return 0
    says tlsverify true
    for one in ca:tlscacert cert:tlscert key:tlskey; do says "${one#*:}" "\"/etc/docker/tls/${one%%:*}.pem\""; done
}

# ranges: says what the account that root of containers becomes lacks.
ranges() {
    grep -q '^dockremap:' etc/passwd || echo "the account dockremap is missing"
    for ranges in etc/subuid etc/subgid; do
        awk -F: '$1 == "dockremap" && $2 >= 65536 && $3 >= 65536 { found = 1 } END { exit !found }' "$ranges" 2>/dev/null ||
            echo "/$ranges gives dockremap no 65536 numbers of its own"
    done
}

# started_as: the words that the running daemon was started with; none where nothing names its process.
started_as() {
    process=$(systemctl show --property MainPID --value docker.service 2>/dev/null) || process=''
    case $process in '' | 0) process=$(cat run/docker.pid 2>/dev/null) || process='' ;; esac
    [ "$(cat "proc/$process/comm" 2>/dev/null)" = dockerd ] || return 0
    tr '\0' ' ' <"proc/$process/cmdline" | sed 's/ $//'
}

# What `docker info` is to say, all at once since each start of docker takes its time: how it runs, whether it is in a swarm,
# what is otherwise than the packages have it, a line each, and its warnings.
line='
'
told='{{.LiveRestoreEnabled}} {{.LoggingDriver}} {{.SecurityOptions}}
{{.Swarm.LocalNodeState}}
{{if ne .DefaultRuntime "runc"}}containers run by {{.DefaultRuntime}}, not by runc
{{end}}{{if .ExperimentalBuild}}experimental features are on
{{end}}{{if .Debug}}log-level is debug, not info
{{end}}{{range .RegistryConfig.IndexConfigs}}{{if not .Secure}}the registry {{.Name}} is believed without TLS
{{end}}{{end}}{{range .RegistryConfig.InsecureRegistryCIDRs}}{{if and (ne (print .) "127.0.0.0/8") (ne (print .) "::1/128")}}registries in {{.}} are believed without TLS
{{end}}{{end}}warnings
{{range .Warnings}}{{println .}}{{end}}'

live() {
    active docker.service
    # `docker info` ends with 0 without a daemon, and shows a template of nothing; `docker version` does not.
    if ! answer=$(docker version --format '{{.Server.Version}}' 2>&1 >/dev/null &&
        docker info --format "$told" 2>&1); then
        echo "Docker did not answer, so that how it runs is not known: $(printf %s "$answer" | tr -s ' \n' ' ')"
        echo "journalctl -u docker says why; systemctl start docker starts it"
        return
    fi
    more=${answer#*"$line"} answer=${answer%%"$line"*}
    started=$(started_as)
    if [ -z "$started" ]; then
        echo "how the running daemon was started is not known: neither docker.service nor /run/docker.pid names a dockerd"
    else
        starts "$started" || echo "the running daemon was started with other options than its package's: $(shown "$started")"
    fi
    case $answer in true\ *) ;; *) echo "containers end with the running daemon: live-restore is off" ;; esac
    case $answer in *\ local\ *) ;; *) driver=${answer#* } && echo "the running daemon logs by ${driver%% *}, not by local" ;; esac
    case $answer in *name=no-new-privileges*) ;; *) echo "programs in containers may gain privileges: no-new-privileges is off" ;; esac
    case $answer in *name=seccomp,profile=builtin*) ;; *) echo "system calls are not filtered by Docker's own profile (seccomp)" ;; esac
    case $answer in *name=apparmor*) ;; *) echo "AppArmor confines no container" ;; esac
    if [ "$PARAM_USERNS_REMAP" != off ]; then
        case $answer in *name=userns* | *name=rootless*) ;; *) echo "root of a container is root of this host: no user namespace" ;; esac
    fi
    swarm=${more%%"$line"*}
    printf '%s\n' "$more" | awk 'NR == 1 { next } $0 == "warnings" { warned = 1; next } warned ? /API is accessible/ : NF'
    [ "$swarm" = inactive ] || echo "swarm mode is $swarm"
    icc=$(docker network inspect --format '{{index .Options "com.docker.network.bridge.enable_icc"}}' bridge 2>&1) || true
    [ "$icc" = false ] || echo "containers reach each other through the default bridge: $icc"
}

if [ "$LIVE" = 1 ]; then
    bad=$(live)
    [ -z "$bad" ] || { echo "$bad"; exit 1; }
    echo "dockerd answers on its socket, filters system calls and keeps containers apart; user namespaces: $PARAM_USERNS_REMAP"
    exit 0
fi

bad=$(
    if [ ! -f "$file" ] || [ -L "$file" ]; then
        echo "/$file is missing, or a link: Docker's own defaults hold"
    elif settings=$(json "$file"); then
        set_as_asked
    else
        echo "/$file cannot be judged: $settings"
        settings=''
    fi
    [ "$PARAM_USERNS_REMAP" != dockremap ] || ranges
    ports=''
    [ "$PARAM_TCP" = tls ] || ports='hosts tlsverify'
    # What would open it, take its filters away, or put something else in the place of what packages bring.
    for key in $ports insecure-registries iptables ip6tables seccomp-profile tls experimental storage-driver storage-opts \
        cgroup-parent default-cgroupns-mode runtimes default-runtime group metrics-addr api-cors-header; do
        if mentions "$key"; then echo "$key is set in /$file"; fi
    done
    options
    start=$(setting system/docker.service Service ExecStart)
    starts "$start" || echo "systemd/system/docker.service starts $(shown "${start:-nothing}")"
    listens=$(systemd-analyze cat-config --root="$ROOT" systemd/system/docker.socket | sed -n 's/^[ \t]*Listen[A-Za-z]*[ \t]*=[ \t]*//p')
    [ "$listens" = /run/docker.sock ] || [ "$listens" = /var/run/docker.sock ] || echo "docker.socket listens on ${listens:-nothing}"
    expect system/docker.socket Socket SocketMode 0660
    members=$(awk -F: 'FILENAME == "etc/group" { if ($1 == "docker") { gid = $3; print $4 } next }
        gid != "" && $4 == gid {print $1}' etc/group etc/passwd | sed '/^$/d' | paste -s -d , -)
    [ -z "$members" ] || echo "as good as root, by group docker: $members"
    comes_up docker.service
    # networkd would take a container's interface out of its bridge, or the bridge's address away: these are Docker's own.
    managed veth1a2b3c4/ether/veth docker0/bridge/bridge br-1a2b3c4d5e6f/bridge/bridge |
        sed "s/$/, which is Docker's: Kind=!* in its [Match] leaves it alone/"
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "dockerd listens on its socket alone and keeps containers apart; user namespaces: $PARAM_USERNS_REMAP"
