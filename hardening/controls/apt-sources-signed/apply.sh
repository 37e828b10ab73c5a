# Names the key in every source that names none, and takes back `trusted`, which switches signatures off. Where a source has that
# in the place of a key, its key is somebody else's: it becomes `trusted=no`, and stays unsigned for the check to refuse.
set -eu
cd "$ROOT"
for folder in etc/apt etc/apt/sources.list.d; do
    [ -d "$folder" ] && [ ! -L "$folder" ] || exit 0
done
for file in etc/apt/sources.list etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    new=$(sed -E -e '/^deb/{
/signed-by=/s/[[:space:]]*\b(trusted|allow-insecure|allow-weak)=[^] ]*//g
s/\b(trusted|allow-insecure|allow-weak)=[^] ]*/\1=no/g
s/\[[[:space:]]*\][[:space:]]*//
/(signed-by|trusted|allow-insecure|allow-weak)=/!{
s#^(deb|deb-src)[[:space:]]+\[[[:space:]]*#\1 [signed-by='"$PARAM_KEYRING"' #
/signed-by=/!s#^(deb|deb-src)[[:space:]]+#\1 [signed-by='"$PARAM_KEYRING"'] #
}
}' "$file")
    [ "$new" = "$(cat "$file")" ] || printf '%s\n' "$new" > "$file"
done
for file in etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    new=$(awk -v RS= -v keyring="$PARAM_KEYRING" '
        {
            text = held = ""; signed = 0; n = split($0, lines, "\n")
            for (i = 1; i <= n; i++) {
                if (tolower(lines[i]) ~ /^(trusted|allow-insecure|allow-weak)[ \t]*:/) {
                    sub(/:.*/, ": no", lines[i]); held = held lines[i] "\n"; continue
                }
                if (tolower(lines[i]) ~ /^signed-by:/) signed = 1
                text = text lines[i] "\n"
            }
            if (text ~ /(^|\n)[Tt]ypes:/ && !signed) text = text (held ? held : "Signed-By: " keyring "\n")
            printf "%s%s", (NR > 1 ? "\n" : ""), text
        }' "$file")
    [ "$new" = "$(cat "$file")" ] || printf '%s\n' "$new" > "$file"
done
