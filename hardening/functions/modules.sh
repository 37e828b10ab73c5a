# Kernel modules that must not load, told by modprobe itself for every kernel of the tree.

# barred MODULES: says which of the modules, one a line, are not barred, or are loaded.
barred() {
    kernels=$(ls "$ROOT"/usr/lib/modules 2>/dev/null || true)
    [ -n "$kernels" ] || { echo "no kernel in /usr/lib/modules: nothing to look at"; return; }
    line='
'
    for module in $1; do
        for kernel in $kernels; do
            answer=$(modprobe --dry-run --verbose --dirname "$ROOT" --set-version "$kernel" \
                -C "$ROOT/etc/modprobe.d" -C "$ROOT/run/modprobe.d" -C "$ROOT/usr/local/lib/modprobe.d" -C "$ROOT/usr/lib/modprobe.d" \
                "$module" 2>&1) || true
            answer=${answer##*"$line"}  # what it needs comes first
            case $answer in
                *[\;\|\&\`\$\(]*) echo "$module is not barred in $kernel: $answer" ;;
                "install /bin/false" | "install /bin/false "*) ;;
                *) echo "$module is not barred in $kernel: ${answer:-built in}" ;;
            esac
        done
    done
    if [ "$LIVE" = 1 ]; then
        sed 's/ .*//' /proc/modules | grep -xF -e "$(printf '%s\n' "$1" | tr - _)" | sed 's/$/ is loaded/' || true
    fi
}

# modules_barred MODULES: a whole check.
modules_barred() {
    [ -n "$1" ] || { echo "no modules are named: nothing to look at"; exit 1; }
    bad=$(barred "$1")
    if [ -n "$bad" ]; then
        echo "$bad"
        exit 1
    fi
    echo "none of $(printf '%s\n' "$1" | wc -l) modules can be loaded by name or need"
}
