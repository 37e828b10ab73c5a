set -eu
cd "$ROOT"
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
                (options ~ /(trusted|allow-insecure|allow-weak)=/ ? "unchecked" : "checked"), words[1]
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
                if (key ~ /^(trusted|allow-insecure|allow-weak)$/) checked = "unchecked"
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
