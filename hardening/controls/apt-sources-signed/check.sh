set -eu
cd "$ROOT"
if [ ! -e usr/bin/apt-get ]; then
    echo "no apt in this image"
    exit 2
fi
[ -d etc/apt ] || { echo "/etc/apt is missing: nothing to look at"; exit 1; }
for folder in etc/apt etc/apt/sources.list.d etc/apt/apt.conf.d; do
    [ ! -L "$folder" ] || { echo "/$folder is a link, which may lead out of the image"; exit 1; }
done

# One line a source: file, signed or not, trusted or not, addresses.
sources=$(
    for file in etc/apt/sources.list etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && [ ! -L "$file" ] || continue
        awk -v file="/$file" '/^[ \t]*deb(-src)?[ \t]/ {
            options = match($0, /\[[^]]*\]/) ? substr($0, RSTART, RLENGTH) : ""
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
                if (line ~ /^[ \t]/) value = line; else {key = tolower(line); sub(/:.*/, "", key); value = line; sub(/^[^:]*:/, "", value)}
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

# Apt reads keys in any case of letters, and a statement up to the next ; or brace. A value that is not off counts as on.
weak=$(find etc/apt -xdev -type f \( -path etc/apt/apt.conf -o -path 'etc/apt/apt.conf.d/*' \) -exec awk -v RS='[{;}]' '
    { gsub(/(#|\/\/)[^\n]*/, ""); gsub(/[" \t\r\n]+/, " "); $0 = tolower($0) }
    /(allowunauthenticated|allowinsecurerepositories|allowweakrepositories) ./ && !/ (0|no|false|without|off|disable) ?$/ {print FILENAME}
' {} + | sort -u)
bad=$(
    # What a link says lies elsewhere, in the image and not on this host: it is not looked at, and so not accepted.
    find etc/apt/apt.conf etc/apt/apt.conf.d etc/apt/sources.list etc/apt/sources.list.d -xdev -type l \
        -printf '/%p is a link, and may say anything\n' 2>/dev/null || true
    [ -z "$weak" ] || echo "signatures are switched off in /$weak"
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
