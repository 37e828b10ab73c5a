set -eu
cd "$ROOT"
brought=$(mktemp -d)
trap 'rm -rf "$brought"' EXIT
brought_in "$brought"
unverified='trusted-host|insecure-host|unsafehttpwhitelist|allowinsecure|(strict-?ssl|tls_certcheck|ssl[-_]?verify|ssl_verify_mode|check_certificate|verify_ssl|secure-http)["'"'"']?[[:space:]]*[:= ][[:space:]]*["'"'"']?(false|0|no|off|none|never)\b|^[[:space:]]*(--?)?insecure([[:space:]]*[=:][[:space:]]*(true|1|yes|on))?[[:space:]]*$|^[[:space:]]*-k[[:space:]]*$|stricthostkeychecking[[:space:]=]+(no|off)\b|userknownhostsfile[[:space:]=]+"?/dev/null|gosumdb=off|go(insecure|nosumdb|nosumcheck)=.|goflags=.*-insecure|tls_reqcert[[:space:]]+(never|allow|try)|^[[:space:]]*(loose[-_])?(skip|disable)[-_]ssl|\bssl([-_]verify[-_]server[-_]cert|[-_]?mode)?[[:space:]]*=[[:space:]]*"?(disabled?|0|off|false)\b|^[[:space:]]*@cert-authority\b'
index='(index|registry|registries|find-links|mirror|source|sources|channels?|channel_alias|url|insteadof|goproxy)[^[:space:]]*[[:space:]]*[]:=>[:space:]][^#]*http://|^[[:space:]]*-[[:space:]]*"?http://|^[[:space:]]*\[url[^]]*http://|^[[:space:]]*http://'
q="[\"']?" is="[\"']?[[:space:]]*[:= ][[:space:]]*[\"']?"
off="$is(false|0|no|off)\b" on="$is(true|1|yes|on)\b"
# Settings of other programs that fetch packages and code, wherever they lie: names as `find` knows them, a tab, and what no line of
# them may say. Those that packages bring are compared elsewhere. From the third row on come files of projects: what lies in a folder
# of dependencies is read by nobody, and links among them are ordinary.
table=$(cat <<EOF
pip.conf .npmrc npmrc .yarnrc .yarnrc.yml bunfig.toml .bunfig.toml uv.toml .condarc condarc */condarc.d/* .gemrc gemrc */.bundle/config */.cargo/config* */.m2/settings.xml ./etc/maven/*.xml */*maven*/conf/settings.xml */go/env go.env */.composer/config.json curlrc .curlrc .wgetrc wgetrc .gitconfig ./etc/gitconfig */.config/git/config ./etc/ssh/ssh_config* */.ssh/config .hgrc msmtprc .msmtprc */ldap/ldap.conf ldaprc .ldaprc .pg_service.conf pg_service.conf .my.cnf ./etc/my.cnf* */containers/policy.json */containers/registries.conf* ssh_known_hosts* known_hosts	$unverified|$index
./etc/mysql/*	$unverified
*/.kube/config kubeconfig *.kubeconfig kubeconfig.y*ml */kubernetes/*.conf */helm/repositories.yaml	insecure[-_]skip[-_]tls[-_]verify$on|server${is}http://
*/certs.d/*/hosts.toml */containerd/*.toml	skip_verify$on|server${is}http://|\[host\.["']http://
ansible.cfg .ansible.cfg	$unverified|(host_key_checking|validate_certs)$off|ignore_certs$on
*/stunnel/*.conf stunnel*.conf	^[[:space:]]*verify(chain|peer)?[[:space:]]*=[[:space:]]*(0|no)\b
gpg.conf	^[[:space:]]*(trust-model[[:space:]]+always|always-trust)\b
*sequoia.config	=[[:space:]]*["']?always\b
.mavenrc mavenrc */.mvn/*.config	ssl\.(insecure|allowall)=true
pyproject.toml Pipfile uv.lock poetry.lock pdm.lock	(^|[{,[:space:]])(url|registry|(extra-|default-)?index(-url)?)$q[[:space:]]*=[[:space:]]*\[?[[:space:]]*["']http://|verify_ssl$off|insecure-host
Gemfile gems.rb Gemfile.lock	\b(source|git|remote)[[:space:]=>(:]+${q}http://
package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml	(resolved|resolution|tarball)["':[:space:]]+([^"'[:space:]]*@)?http://
*requirements*.txt *constraints*.txt */requirements/*.txt	(^|[[:space:]])(-i|-f|--(extra-)?index-url|--find-links)[[:space:]=]*http://|--trusted-host|@[[:space:]]*(git\+)?http://
composer.json	secure-http$off|disable-tls$on
[Nn]u[Gg]et.[Cc]onfig	<add[[:space:]]+key=.[^"]*([^y"]|[^x"]y)"[^>]*value=.http://|allowinsecureconnections=.true
EOF
)
others=$(
    set -f; set --; row=0
    while IFS='	' read -r names lines; do
        row=$((row + 1)); set -- "$@" -o \( -false
        for name in $names; do case $name in */*) set -- "$@" -o -path "$name" ;; *) set -- "$@" -o -name "$name" ;; esac; done
        set -- "$@" \) -printf "$row\t%y\t%P\n"
    done <<EOF
$table
EOF
    find . -xdev \( -type f -o -type l \) \( -false "$@" \) | ROWS="$table" awk -F '\t' '
        BEGIN { split(ENVIRON["ROWS"], rows, "\n") }
        FILENAME != "-" { listed[$0]; next }
        $3 in listed || $1 > 1 && $2 == "l" || $1 > 2 && $3 ~ /(^|\/)(node_modules|(site|dist)-packages|gems|vendor)\// { next }
        { sub(/^[^\t]*\t/, "", rows[$1]); print $2 "\t" $3 "\t" rows[$1] }' "$brought/listed" - | sort |
        while IFS='	' read -r kind file lines; do
            # What a link says lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
            if [ "$kind" = l ]; then echo "/$file: is a link, and may say anything"; continue; fi
            # A folder of registries may be believed without a signature, but not all of them.
            case $file in */containers/policy.json)
                if tr -d '[:space:]' < "$file" | grep -qE '"default":\[[^]]*insecureAcceptAnything|\\u'; then echo "/$file: believes images without a signature"; fi ;;
            esac
            case $file in *.xml | *.[Cc]onfig) awk -v RS='-->' '{ sub(/<!--.*/, "") } 1' "$file" ;; *) cat -- "$file" ;; esac |
                grep -avE '^[[:space:]]*[#;]' | sed -E 's#\\/#/#g; s#http://(localhost|127\.[0-9.]+|0\.0\.0\.0|\[::1\])(:[0-9]+)?([^A-Za-z0-9.:@_-]|$)#local\3#Ig' |
                if grep -qaiE -e "$lines"; then echo "/$file: fetches without verification, or without TLS"; fi
        done | refused)
[ -z "$others" ] || { echo "$others"; exit 1; }
if [ ! -e usr/bin/apt-get ]; then
    echo "no apt in this image"
    exit 2
fi
[ -d etc/apt ] || { echo "/etc/apt is missing: nothing to look at"; exit 1; }
for folder in etc/apt etc/apt/sources.list.d; do
    [ ! -L "$folder" ] || { echo "/$folder is a link, which may lead out of the image"; exit 1; }
done

# One line a source: file, signed or not, trusted or not, addresses.
sources=$(
    for file in etc/apt/sources.list etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && [ ! -L "$file" ] || continue
        awk -v file="/$file" '/^[ \t]*deb(-src)?[ \t]/ {
            options = match($0, /\[[^]]*\]/) ? tolower(substr($0, RSTART, RLENGTH)) : ""
            rest = $0; sub(/^[ \t]*deb(-src)?[ \t]+/, "", rest); sub(/^\[[^]]*\][ \t]*/, "", rest); split(rest, words, /[ \t]+/)
            print file, (options ~ /signed-by=[^] ]/ ? "signed" : "unsigned"), \
                (options ~ /(trusted|allow-insecure|allow-weak)=([^n]|n[^o]|no[^] ])/ ? "unchecked" : "checked"), words[1]
        }' "$file"
    done
    for file in etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && [ ! -L "$file" ] || continue
        awk -v RS= -v file="/$file" '{
            signed = "unsigned"; checked = "checked"; uris = ""; types = 0; enabled = 1; key = ""
            n = split($0, lines, "\n")
            for (i = 1; i <= n; i++) {
                line = lines[i]
                if (line ~ /^#/) continue
                if (line ~ /^[ \t]/) value = line; else {key = tolower(line); sub(/[ \t]*:.*/, "", key); value = line; sub(/^[^:]*:/, "", value)}
                gsub(/^[ \t]+|[ \t]+$/, "", value)
                if (key == "types" && value != "") types = 1
                if (key == "signed-by" && value != "") signed = "signed"
                if (key ~ /^(trusted|allow-insecure|allow-weak)$/ && tolower(value) != "no") checked = "unchecked"
                if (key == "uris") uris = uris " " value
                if (key == "enabled" && tolower(value) ~ /^(no|false|0)$/) enabled = 0
            }
            if (types && enabled) print file, signed, checked, uris
        }' "$file"
    done
)
[ -n "$sources" ] || { echo "apt is here, but no package source: nothing to look at"; exit 1; }

settings=$(apt_settings) || { echo "$settings"; exit 1; }
# Apt reads keys in any case of letters. A value that is not off counts as on.
weak=$(printf '%s\n' "$settings" | awk '
    {
        key = tolower($1); value = tolower($0); sub(/^[^"]*"/, "", value); sub(/";$/, "", value)
        off = value ~ /^(0+|no|false|without|off|disable)$/
    }
    key ~ /(^|::)(allowunauthenticated|allow(insecure|weak|downgradetoinsecure)repositories)$/ && value != "" && !off {print $1, "signatures are switched off"}
    key ~ /^apt::hashes::.*::(weak|untrusted)$/ && off {print $1, "weak checksums are believed"}
    key ~ /(^|::)verify-(peer|host)$/ && off {print $1, "servers are not asked who they are"}' | while read -r key what; do
    found=$(grep -rliF -e "${key##*::}" etc/apt/apt.conf etc/apt/apt.conf.d 2>/dev/null | sed 's,^,/,' | paste -s -d ' ' -)
    echo "$what in $found: $key"
done)
bad=$(
    # What a link says lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
    find etc/apt/sources.list etc/apt/sources.list.d -xdev -type l \
        -printf '/%p is a link, and may say anything\n' 2>/dev/null || true
    [ -z "$weak" ] || echo "$weak"
    printf '%s\n' "$sources" | while read -r file signed checked uris; do
        [ "$signed" = signed ] || echo "$file: no Signed-By for $uris"
        [ "$checked" = checked ] || echo "$file: trusted or allow-insecure switches signatures off for $uris"
        case "$PARAM_HTTPS $uris" in required*http:*) echo "$file: plain http for $uris" ;; esac
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
plain=$(printf '%s\n' "$sources" | grep -c 'http:' || true)
echo "$(printf '%s\n' "$sources" | wc -l) sources, each with its key; $plain over plain http"
