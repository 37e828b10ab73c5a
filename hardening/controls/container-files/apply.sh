# What packages bring is right; the settings and certificates that a definition adds are made so.
set -eu
cd "$ROOT"
set_to() { # MODE PATH: touches only what is otherwise
    [ "$(stat -c '%a %u:%g' "$2")" = "$1 0:0" ] || { chown 0:0 "$2" && chmod "$1" "$2"; }
}
[ -d etc/docker ] && [ ! -L etc/docker ] || exit 0
find etc/docker -type d | while IFS= read -r folder; do set_to 755 "$folder"; done
find etc/docker -type f | while IFS= read -r file; do
    case $file in
        *.key | */key.pem) set_to 400 "$file" ;;
        etc/docker/certs.d/* | *.pem) set_to 444 "$file" ;;
        *) set_to 644 "$file" ;;
    esac
done
