set -eu
cd "$ROOT"
brought=$(mktemp -d)
trap 'rm -rf "$brought"' EXIT
brought_in "$brought"
# Settings of other programs that fetch packages and code, wherever they lie. Those that packages bring are compared elsewhere.
unverified='trusted-host|insecure-host|unsafehttpwhitelist|allowinsecure|(strict-?ssl|ssl-?verify|ssl_verify_mode|check_certificate|verify_ssl|secure-http)["'"'"']?[[:space:]]*[:= ][[:space:]]*["'"'"']?(false|0|no|off|none|never)\b|^[[:space:]]*(--?)?insecure([[:space:]]*[=:][[:space:]]*(true|1|yes|on))?[[:space:]]*$|^[[:space:]]*-k[[:space:]]*$|stricthostkeychecking[[:space:]=]+(no|off)\b|gosumdb=off|goinsecure=.|goflags=.*-insecure|tls_reqcert[[:space:]]+(never|allow|try)|^[[:space:]]*(loose[-_])?(skip|disable)[-_]ssl|\bssl([-_]verify[-_]server[-_]cert|[-_]?mode)?[[:space:]]*=[[:space:]]*"?(disabled?|0|off|false)\b|^[[:space:]]*@cert-authority\b'
index='(index|registry|registries|find-links|mirror|source|sources|channels?|channel_alias|url|insteadof|goproxy)[^[:space:]]*[[:space:]]*[]:=>[:space:]][^#]*http://|^[[:space:]]*-[[:space:]]*"?http://|^[[:space:]]*\[url[^]]*http://|^[[:space:]]*http://'
others=$(find . -xdev \( -type f -o -type l \) \( -name pip.conf -o -name .npmrc -o -name npmrc -o -name .yarnrc -o -name .yarnrc.yml -o -name bunfig.toml -o -name .bunfig.toml \
    -o -name uv.toml -o -name .condarc -o -name .gemrc -o -name gemrc -o -path '*/.bundle/config' -o -path '*/.cargo/config*' -o -path '*/.m2/settings.xml' \
    -o -path './etc/maven/*.xml' -o -path '*/.config/go/env' -o -path '*/.composer/config.json' -o -name .curlrc -o -name .wgetrc -o -name wgetrc -o -name .gitconfig \
    -o -path './etc/gitconfig' -o -path '*/.config/git/config' -o -path './etc/ssh/ssh_config*' -o -path '*/.ssh/config' -o -name .hgrc \
    -o -path '*/ldap/ldap.conf' -o -name ldaprc -o -name .ldaprc -o -name .pg_service.conf -o -name pg_service.conf -o -name .my.cnf -o -path './etc/my.cnf*' \
    -o -path './etc/mysql/*' -type f -o -path '*/containers/policy.json' -o -path '*/containers/registries.conf*' -o -name 'ssh_known_hosts*' -o -name known_hosts \) -printf '%P\n' |
    sort | comm -23 - "$brought/listed" | while IFS= read -r file; do
        # What a link says lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
        if [ -L "$file" ]; then echo "/$file: is a link, and may say anything"; continue; fi
        # A folder of registries may be believed without a signature, but not all of them.
        case $file in */containers/policy.json)
            if tr -d '[:space:]' < "$file" | grep -qE '"default":\[[^]]*insecureAcceptAnything|\\u'; then echo "/$file: believes images without a signature"; fi ;;
        esac
        if grep -avE '^[[:space:]]*[#;]' -- "$file" | grep -qaiE -e "$unverified" -e "$index"; then echo "/$file: fetches without verification, or without TLS"; fi
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
