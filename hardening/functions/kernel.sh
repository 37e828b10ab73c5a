# The kernel's parameters: of the running machine, or as the tree will boot.

# normal: what it reads, a parameter a line, with _ for each - of a name, which are the same to the kernel.
normal() {
    awk -F= '{ name = $1; if (name != "--") gsub(/-/, "_", name); print name substr($0, length($1) + 1) }'
}

# parameters: one a line, as the kernel reads them: without quotes, and with _ for each - of a name.
# /etc/kernel/cmdline is what the builder joined, from all files of cmdline.d among others.
parameters() {
    if [ "$LIVE" = 1 ]; then
        cat /proc/cmdline
    elif [ -f "$ROOT/etc/kernel/cmdline" ] && [ ! -L "$ROOT/etc/kernel/cmdline" ]; then
        cat "$ROOT/etc/kernel/cmdline"
    else
        for file in "$ROOT"/etc/kernel/cmdline.d/*.conf; do
            if [ -f "$file" ] && [ ! -L "$file" ]; then cat "$file"; fi
        done
    fi | awk '{
        count = split($0, quoted, "\""); line = ""
        for (i = 1; i <= count; i++) { if (i % 2 == 0) gsub(/[ \t]/, "\034", quoted[i]); line = line quoted[i] }
        count = split(line, words)
        for (i = 1; i <= count; i++) { gsub(/\034/, " ", words[i]); print words[i] }
    }' | normal
}

# parameter KEY=VALUE …: says which of them does not hold, because it is absent or a later one says otherwise. What
# stands behind a -- is for the first process, and not for the kernel.
parameter() {
    wanted=$(printf '%s\n' "$@" | normal)
    parameters | WANTED=$wanted awk '
        function name_of(word) { return index(word, "=") ? substr(word, 1, index(word, "=") - 1) : word }
        $0 == "--" { behind = 1 }
        !behind { last[name_of($0)] = $0 }
        END {
            count = split(ENVIRON["WANTED"], wanted)
            for (i = 1; i <= count; i++) {
                name = name_of(wanted[i])
                if (!(name in last)) print "kernel parameter " wanted[i] " is missing"
                else if (last[name] != wanted[i]) print "kernel parameter " wanted[i] " is missing: " last[name] " counts"
            }
        }'
}
