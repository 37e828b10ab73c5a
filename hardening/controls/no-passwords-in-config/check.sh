# Prints files and keys, never what stands behind them: evidence is published. What packages brought and nobody changed
# is theirs to answer for, so the image's own files are looked at, and configuration files.
set -eu
cd "$ROOT"
files=$(find . -xdev -type f | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./usr/share/doc -o -path ./usr/share/i18n \
    -o -path ./var/lib/dpkg -o -path ./usr/share/zoneinfo -o -path ./usr/share/perl -o -path ./usr/share/perl5 \) -prune -o \
    -type f -size -1024k \( -path './etc/*' -o -name '.env' -o -name '.env.*' -o -name '*.env' -o -name '*.conf' -o -name '*.cfg' \
    -o -name '*.cnf' -o -name '*.ini' -o -name '*.properties' -o -name '*.toml' -o -name '*.yaml' -o -name '*.yml' -o -name '*.json' \
    -o -name '*.xml' -o -name '*.php' -o -name '*config*.py' -o -name 'settings*.py' -o -name '*config*.js' -o -name '*.service' \
    -o -name '*.sh' -o -name 'wp-config*' \) -printf '%P\n' | sort > "$folder/candidates"
# Packaged files other than configuration: dpkg's own list of checksums.
find var/lib/dpkg/info -maxdepth 1 -type f -name '*.md5sums' -exec cut -c 35- -- {} + 2>/dev/null |
    sed -E 's#^(bin|sbin|lib|lib64)/#usr/\1/#' | sort -u > "$folder/packaged"
comm -23 "$folder/candidates" "$folder/packaged" > "$folder/own"

# KEY SEPARATOR VALUE, where the value is no reference, no placeholder and no word of a grammar.
secret='([a-z0-9]+[_.-]?)*(password|passwd|passphrase|db_?pass|secret_?key|api_?key|auth_?token|access_?token|client_?secret)'
nothing='^("|'"'"')?(\$|<|%|\{|\*|@|x{3,}|changeme$|(none|null|nil|true|false|yes|no|on|off|required|optional|sufficient|requisite|prompt|ask|disabled|enabled|files?|compat|systemd|sss|ldap|md5|sha512|yescrypt|password|passwd|secret|example|placeholder|redacted|str|string|bool|int|nul)[^a-z0-9]*$|[/.~]|[0-9]{1,3}[^0-9a-z]*$|[[:punct:]]*$|[a-z]+ [a-z]+)'
tr '\n' '\0' < "$folder/own" | xargs -0 -r grep -IHniE -e "(^|[^a-z])$secret[\"']?[[:space:]]*(=>|:=|=|:)[[:space:]]*[^[:space:]]" \
    -e "define\([[:space:]]*['\"][a-z_]*(PASSWORD|SECRET|_KEY|_SALT)['\"][[:space:]]*,[[:space:]]*['\"][^'\"]" \
    -e 'jdbc:[a-z0-9]+:.*[?;&](password|pwd)=[^$<{&;[:space:]]' \
    -e '[a-z][a-z0-9+.-]*://[^/:@[:space:]"'"'"'$<{]+:[^/@[:space:]"'"'"'$<{*]+@[a-z0-9]' -- 2>/dev/null > "$folder/lines" || true
bad=$(grep -vE '^[^:]*:[0-9]+:[[:space:]]*(#|;|//|\*|--)' "$folder/lines" | while IFS= read -r line; do
    file=${line%%:*} rest=${line#*:}
    number=${rest%%:*} text=${rest#*:}
    lower=$(printf %s "$text" | tr '[:upper:]' '[:lower:]')
    key=$(printf %s "$lower" | grep -oE "define\([[:space:]]*['\"][a-z_]*" | sed "s/.*['\"]//" || true)
    if [ -z "$key" ]; then
        case $lower in *jdbc:*[\?\;\&]password=* | *jdbc:*[\?\;\&]pwd=*) key="the address of a database" ;; esac
    fi
    if [ -z "$key" ]; then
        key=$(printf %s "$lower" | grep -oE "$secret[\"']?[[:space:]]*(=>|:=|=|:)" | head -n 1 | sed -E "s/[\"']?[[:space:]]*(=>|:=|=|:)\$//" || true)
        case $key in *nopasswd) continue ;; esac
        if [ -n "$key" ]; then
            value=$(printf %s "$lower" | sed -E "s/^.*$secret[\"']?[[:space:]]*(=>|:=|=|:)[[:space:]]*//")
            ! printf %s "$value" | grep -qE "$nothing" || continue
            case $value in *'('*) continue ;; esac
        else
            key="an address with a password"
            printf %s "$lower" | grep -qE '(example\.|user:pass|username:password|:\*+@)' && continue
        fi
    fi
    allowed=
    set -f
    for pattern in $PARAM_ALLOW; do
        # shellcheck disable=SC2254
        case /$file in $pattern) allowed=1 ;; esac
    done
    set +f
    [ -n "$allowed" ] || echo "/$file:$number: $key"
done | sort -u)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "$(wc -l < "$folder/own") configuration files, no password that could be seen"
