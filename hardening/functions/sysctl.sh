# Kernel settings: what `key=value` lines ask for holds, whatever another file says.

# settings_running WANTED: the running kernel's own word; a glob stands for all that it matches. Of the features and
# interfaces below, one that is not there cannot be on. Any other setting that is not there is a protection it lacks.
settings_running() {
    printf '%s\n' "$1" | awk -F= '
        {last[$1] = $2}
        END {
            for (key in last) {
                path = key; gsub(/\//, "\t", path); gsub(/\./, "/", path); gsub(/\t/, ".", path)
                print "/proc/sys/" path, last[key]
            }
        }' | while read -r files value; do
        for file in $files; do
            if [ -r "$file" ]; then echo "$file $value"; continue; fi
            case ${file#/proc/sys/} in
                net/ipv4/conf/all/* | net/ipv4/conf/default/*) ;;
                net/ipv4/conf/* | net/ipv6/* | net/core/bpf_jit_harden | kernel/unprivileged_bpf_disabled | kernel/kexec_load_disabled | \
                    kernel/perf_event_paranoid | kernel/sysrq | kernel/core_pattern | vm/unprivileged_userfaultfd)
                    echo "absent $file" && continue ;;
            esac
            echo "bad ${file#/proc/sys/} is no setting of the running kernel"
        done
    done | awk '
        $1 == "absent" || $1 == "bad" { print; next }
        {
            value = substr($0, length($1) + 2); now = ""
            for (lines = 0; (getline line < $1) > 0; lines++) now = now (lines ? "\n" : "") line
            close($1); gsub(/\t/, " ", now)
            if (now == value) print "good", $1
            else print "bad", substr($1, length("/proc/sys/") + 1) " is " now " in the running kernel, not " value
        }'
}

# settings_written WANTED: what the files come to, in systemd-sysctl's order; `sysctl --system` adds /etc/sysctl.conf.
settings_written() {
    {
        systemd-analyze cat-config --root="$ROOT" sysctl.d
        if [ -f "$ROOT/etc/sysctl.conf" ]; then
            printf '# /etc/sysctl.conf\n'
            cat "$ROOT/etc/sysctl.conf"
        fi
    } | WANTED=$1 awk -v root="${ROOT%/}" '
        function canonical(key) {  # net/ipv4/conf/eth0.1/x and net.ipv4.conf.eth0/1.x are the same
            if (match(key, /[.\/]/) && substr(key, RSTART, 1) == "/") return key
            gsub(/\//, "\t", key); gsub(/\./, "/", key); gsub(/\t/, ".", key)
            return key
        }
        function matches(key, glob) {
            gsub(/\./, "[.]", glob); gsub(/\?/, "[^/]", glob); gsub(/\*/, "[^/]*", glob)
            return key ~ ("^" glob "$")
        }
        function trim(text) { gsub(/^[ \t]+|[ \t]+$/, "", text); gsub(/[ \t]+/, " ", text); return text }
        /^# \// { file = substr($2, index($2, root) == 1 ? length(root) + 1 : 1); next }
        /^[ \t]*([#;]|$)/ { next }
        {
            at = index($0, "="); key = trim(at ? substr($0, 1, at - 1) : $0); sub(/^-[ \t]*/, "", key); key = canonical(key)
            if (!at) { excluded[key] = 1; next }
            got[key] = trim(substr($0, at + 1)); from[key] = file
            if (key ~ /[*?\[]/) globs[++count] = key
        }
        END {
            total = split(ENVIRON["WANTED"], lines, "\n")
            for (i = 1; i <= total; i++) {
                at = index(lines[i], "=")
                want[canonical(substr(lines[i], 1, at - 1))] = substr(lines[i], at + 1)
            }
            for (key in want) {
                found = key in got ? key : ""
                if (!found && !(key in excluded))
                    for (i = 1; i <= count; i++) if (matches(key, globs[i])) found = globs[i]
                if (!found) print "bad", key " is set nowhere, and should be " want[key]
                else if (got[found] != want[key]) print "bad", key " is " got[found] " by " from[found] ", not " want[key]
                else print "good", key
                # One interface can be told otherwise than all of them.
                if (split(key, part, "/") != 5 || key !~ /^net\/ipv[46]\/conf\//) continue
                for (other in got) {
                    split(other, its, "/")
                    if (other in want || got[other] == want[key]) continue
                    if (its[2] != part[2] || its[3] != "conf" || its[5] != part[5]) continue
                    print "bad", other " is " got[other] " by " from[other] ", not " want[key]
                }
            }
        }'
}

# settings_applied: says where what is written is not applied, or where something else writes after it.
settings_applied() {
    enabled systemd-sysctl.service
    expect system/systemd-sysctl.service Service ExecStart /usr/lib/systemd/systemd-sysctl
    for folder in etc usr/local/lib usr/lib; do
        [ ! -d "$ROOT/$folder/tmpfiles.d" ] || grep -rsE '^[[:space:]]*w[-+!=~^$]*[[:space:]]+/proc/sys/' "$ROOT/$folder/tmpfiles.d" | sed "s,^${ROOT%/},," || true
    done
}

# settings_hold WANTED: a whole check.
settings_hold() {
    wanted=$(printf '%s\n' "$1" | grep . || true)
    [ -n "$wanted" ] || { echo "no settings are asked for: nothing to look at"; exit 1; }
    if [ "$LIVE" = 1 ]; then seen=$(settings_running "$wanted"); else seen=$(settings_written "$wanted"; settings_applied | sed 's/^/bad /'); fi
    bad=$(printf '%s\n' "$seen" | sed -n 's/^bad //p' | sort -u)
    good=$(printf '%s\n' "$seen" | grep -c '^good' || true)
    if [ -n "$bad" ] || [ "$good" -eq 0 ]; then
        echo "${bad:-the kernel has none of the settings: nothing to look at}"
        exit 1
    fi
    echo "$good settings hold; $(printf '%s\n' "$seen" | grep -c '^absent' || true) are none of this kernel"
}
