# The kernel's parameters: of the running machine, or as the tree will boot.

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
        for (i = 1; i <= count; i++) {
            at = index(words[i], "="); name = at ? substr(words[i], 1, at - 1) : words[i]
            if (name != "--") gsub(/-/, "_", name)
            word = name (at ? substr(words[i], at) : ""); gsub(/\034/, " ", word); print word
        }
    }'
}

# parameter KEY=VALUE …: says which of them does not hold, because it is absent or a later one says otherwise. What
# stands behind a -- is for the first process, and not for the kernel.
parameter() {
    parameters | WANTED="$*" awk '
        function name_of(word) { return index(word, "=") ? substr(word, 1, index(word, "=") - 1) : word }
        $0 == "--" { behind = 1 }
        !behind { last[name_of($0)] = $0 }
        END {
            count = split(ENVIRON["WANTED"], wanted)
            for (i = 1; i <= count; i++) {
                name = name_of(wanted[i]); rest = substr(wanted[i], length(name) + 1); gsub(/-/, "_", name)
                if (!(name in last)) print "kernel parameter " wanted[i] " is missing"
                else if (last[name] != name rest) print "kernel parameter " wanted[i] " is missing: " last[name] " counts"
            }
        }'
}
