set -eu
cd "$ROOT"
[ -n "$(find etc -xdev ! -type d 2>/dev/null | head -n 1)" ] || { echo "no files in /etc: nothing to look at"; exit 1; }
bad=$(
    for file in etc/hosts etc/nsswitch.conf etc/resolv.conf; do
        [ -L "$file" ] || continue
        case $file:$(readlink -- "$file") in etc/resolv.conf:/run/* | etc/resolv.conf:../run/*) ;; *) echo "/$file is a link, and may say anything" ;; esac
    done
    if [ -f etc/hosts ] && [ ! -L etc/hosts ]; then
        sed -e 's/#.*//' -e 's/[[:space:]]\{1,\}/ /g' -e 's/^ //' -e 's/ $//' etc/hosts | while IFS= read -r line; do
            # A machine's own name stands beside a loopback address; every other name there would be cut off.
            case $line in
                '' | '127.0.0.1 localhost' | '127.0.0.1 localhost.localdomain localhost' | '127.0.1.1 '* | '::1 localhost'* | '::1 ip6-localhost'* | \
                    'fe00::'* | 'fe00:: '* | 'ff00::'* | 'ff02::'*) continue ;;
            esac
            printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "$line" || echo "/etc/hosts: $line"
        done
    fi
    if [ -f etc/resolv.conf ] && [ ! -L etc/resolv.conf ]; then grep -nE '^[[:space:]]*nameserver' etc/resolv.conf | sed 's#^#/etc/resolv.conf:#' || true; fi
    for file in etc/systemd/resolved.conf etc/systemd/resolved.conf.d/*.conf; do
        # A machine that was made may be told its own.
        if [ "$LIVE" = 0 ] && [ -f "$file" ] && [ ! -L "$file" ]; then sed -n 's/^[[:space:]]*\(\(Fallback\)\{0,1\}DNS\)[[:space:]]*=[[:space:]]*\([^[:space:]].*\)/\1=\3/p' "$file"; fi
    done | while IFS= read -r line; do
        printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "$line" || echo "/etc/systemd/resolved.conf: $line"
    done
    if [ -f etc/nsswitch.conf ] && [ ! -L etc/nsswitch.conf ]; then
        sed -e 's/#.*//' -e 's/\[[^]]*\]//g' -ne 's/^[[:space:]]*[^[:space:]:]\{1,\}[[:space:]:]//p' etc/nsswitch.conf | tr -s ' \t' '\n' | sort -u | while IFS= read -r module; do
            [ -z "$module" ] || printf '%s\n' "$PARAM_MODULES" | grep -qxF -e "$module" || echo "/etc/nsswitch.conf: the module $module"
        done
    fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "hosts, resolver and name services name nobody of their own"
