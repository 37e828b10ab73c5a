set -eu
cd "$ROOT"
line='
'
# One walk through all: what lets people in, and how many files there are in the last line.
seen=$(find . -xdev ! -type d \( \( -name 'authorized_keys*' -o -name 'authorized_principals*' -o -path '*/authorized_keys.d/*' \
    -o -name .shosts -o -name .rhosts -o -name shosts.equiv -o -name hosts.equiv \) -printf '/%P lets people in\n' -o -printf '\n' \) |
    awk 'NF { print } END { print NR }')
files=${seen##*"$line"}
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
found=$(printf '%s' "${seen%"$files"}"
    grep -siE '^[[:space:]]*"?(AuthorizedKeysCommand|TrustedUserCAKeys)"?[[:space:]=]+[^n[:space:]]' -r etc/ssh | sed 's/^/\//' || true
    if [ -f etc/ssh/sshd_config ] && [ ! -L etc/ssh/sshd_config ]; then
        sshd_read etc/ssh/sshd_config '' | sed 's/^match //' | while read -r key places; do
            set -f
            case $key in
                unread) echo "$places may name keys, and is not read here" ;;
                authorizedkeyscommand | trustedusercakeys) [ "$places" = none ] || echo "sshd asks $places for keys" ;;
                authorizedkeysfile)
                    for place in $places; do
                        case $place in none) continue ;; /*) place=.$place ;; *) place=*/${place#%h/} ;; esac
                        find . -xdev ! -type d -size +0 -path "$(printf '%s' "$place" | sed 's/%./*/g')" -printf '/%P lets people in\n'
                    done
                    ;;
            esac
        done
    fi)
if [ -n "$found" ]; then
    printf '%s\n' "$found" | sort
    exit 1
fi
echo "$files files, no key or trusted host among them"
