# Debian's own file in limits.d lets everyone raise the limit.
set -eu
cd "$ROOT"
for file in etc/security/limits.conf etc/security/limits.d/*.conf; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    new=$(sed -E '/^[ \t]*(\*|root)[ \t]+(hard|-)[ \t]+core[ \t]/s/core[ \t]+.*/core 0/' "$file")
    [ "$new" = "$(cat "$file")" ] || printf '%s\n' "$new" > "$file"
done
