# PAM's stacks in /etc/pam.d, as Debian makes them out of /usr/share/pam-configs. Stands before a script.

# MODULE FILE: has the stacks made again where FILE (below etc/pam.d) does not name MODULE. The image's own tool does it,
# so that modules which packages bring later find their place, and what is here survives their updates.
pam_add() {
    [ -x "$ROOT/usr/sbin/pam-auth-update" ] && [ -f "$ROOT/etc/pam.d/$2" ] && [ ! -L "$ROOT/etc/pam.d/$2" ] || return 0
    ! grep -q "^[^#]*[[:space:]]$1" "$ROOT/etc/pam.d/$2" || return 0
    if [ "$(realpath -- "$ROOT")" = / ]; then
        DEBIAN_FRONTEND=noninteractive pam-auth-update --package
    else
        DEBIAN_FRONTEND=noninteractive chroot "$ROOT" /usr/sbin/pam-auth-update --package
    fi
    rm -f -- "$ROOT"/var/cache/debconf/*-old
}

# FILE KIND: its lines of KIND (auth, account, password; an expression), or nothing where there is no such file. As PAM
# reads them: in /etc/pam.d or else as packages bring it, without comments, each continued line as one, and the KIND in any case.
pam_lines() {
    pam_file=etc/pam.d/$1
    [ -e "$pam_file" ] || [ -L "$pam_file" ] || pam_file=usr/lib/pam.d/$1
    [ ! -f "$pam_file" ] || [ -L "$pam_file" ] || pam_read "$2" "$pam_file"
}

# KIND: such lines of all stacks, each behind `/FILE: `.
pam_all() {
    pam_kind=$1
    set -- /dev/null
    for pam_file in etc/pam.d/* usr/lib/pam.d/*; do
        [ ! -f "$pam_file" ] || [ -L "$pam_file" ] || set -- "$@" "$pam_file"
    done
    pam_read "$pam_kind" "$@"
}

# KIND FILE…: such lines of these files.
pam_read() {
    pam_kind=$1
    shift
    awk -v kind="$pam_kind" '
        FNR == 1 { joined = "" }
        { comment = sub(/#.*/, ""); line = joined $0; joined = "" }
        !comment && sub(/\\[ \t]*$/, " ", line) { joined = line; next }
        tolower(line) ~ ("^[ \t[]*-?" kind "]?[ \t]") { print (ARGC > 2 ? "/" FILENAME ": " : "") line }' "$@"
}

# MODULES: says which stacks let in whoever gives no proof: where all of MODULES, which ask for one, refuse, and what asks
# for nothing either agrees each time or never does.
pam_open() {
    pam_all '(auth|@include)' | MODULES=$1 awk '
        function target(name) { return ("/etc/pam.d/" name) in count ? "/etc/pam.d/" name : "/usr/lib/pam.d/" name }
        function expand(file, depth,    i) {
            for (i = 1; i <= count[file] && depth < 10 && total < 1000; i++)
                if ((file, i) in included) expand(target(included[file, i]), depth + 1)
                else { total++; control[total] = controls[file, i]; module[total] = modules[file, i]; rest[total] = rests[file, i] }
        }
        function returned(i, others) {
            if (module[i] == "pam_faillock.so") return rest[i] ~ /[ \t]authfail([ \t]|$)/ ? "auth_err" : "success"
            if (module[i] in asks || module[i] == "pam_deny.so") return "auth_err"
            return module[i] == "pam_permit.so" ? "success" : others
        }
        function action(text, result,    i, n, pair, fallback) {
            if (text ~ /^[a-z]/) text = text in short ? short[text] : "default=ignore success=ok"
            fallback = "bad"; n = split(text, pair, /[][ \t]+/)
            for (i = 1; i <= n; i++)
                if (index(pair[i], result "=") == 1) return substr(pair[i], length(result) + 2)
                else if (index(pair[i], "default=") == 1) fallback = substr(pair[i], 9)
            return fallback
        }
        function opens(others,    i, what, result, lets_in) { # as libpam goes through a stack: pam.conf(5)
            for (i = 1; i <= total; i++) {
                result = returned(i, others); what = action(control[i], result)
                if (what ~ /^[0-9]+$/) { i += what; continue }
                if (what == "die") return 0
                if (what == "bad") lets_in = -1
                else if (what == "reset") lets_in = 0
                else if (what != "ignore" && lets_in >= 0) lets_in = result == "success" ? 1 : -1
                if (what == "done" && lets_in > 0) return 1
            }
            return lets_in > 0
        }
        BEGIN {
            n = split(ENVIRON["MODULES"], name, "\n"); for (i = 1; i <= n; i++) asks["pam_" name[i] ".so"]
            short["required"] = "success=ok default=bad"; short["requisite"] = "success=ok default=die"
            short["sufficient"] = "success=done default=ignore"
        }
        {
            file = substr($1, 1, length($1) - 1); number = ++count[file]; line = substr($0, length($1) + 2)
            if (sub(/^[ \t]*@include[ \t]+/, "", line)) { sub(/[ \t].*/, "", line); included[file, number] = line; next }
            sub(/^[ \t[]*-?[A-Za-z]+]?[ \t]+/, "", line); match(line, /^(\[[^]]*]|[^ \t]+)[ \t]*/)
            text = tolower(substr(line, 1, RLENGTH)); gsub(/[ \t]*=[ \t]*/, "=", text); sub(/[ \t]+$/, "", text)
            line = substr(line, RLENGTH + 1); what = line; sub(/[ \t].*/, "", what)
            if (text ~ /^(include|substack)$/) { included[file, number] = what; next }
            controls[file, number] = text; rests[file, number] = line; sub(/.*\//, "", what); modules[file, number] = what
        }
        END {
            for (file in count) {
                total = 0; expand(file, 0)
                if (total >= 1000) print file " is too long to be judged"
                else if (opens("success") || opens("auth_err")) print file " lets in whoever gives no proof"
            }
        }' | sort
}
