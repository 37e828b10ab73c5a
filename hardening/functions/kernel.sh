# The kernel's parameters: of the running machine, or as the tree will boot.

# parameters: one a line. /etc/kernel/cmdline is what the builder joined, from all files of cmdline.d among others.
parameters() {
    if [ "$LIVE" = 1 ]; then
        cat /proc/cmdline
    elif [ -f "$ROOT/etc/kernel/cmdline" ] && [ ! -L "$ROOT/etc/kernel/cmdline" ]; then
        cat "$ROOT/etc/kernel/cmdline"
    else
        for file in "$ROOT"/etc/kernel/cmdline.d/*.conf; do
            if [ -f "$file" ] && [ ! -L "$file" ]; then cat "$file"; fi
        done
    fi | tr -s ' \t' '\n' | grep . || true
}

# parameter KEY=VALUE …: says which of them does not hold, because it is absent or a later one says otherwise.
parameter() {
    given=$(parameters)
    for wanted; do
        last=$(printf '%s\n' "$given" | grep -E "^${wanted%%=*}(=|\$)" | tail -n 1)
        [ "$last" = "$wanted" ] || echo "kernel parameter $wanted is missing${last:+: $last counts}"
    done
}
