# Reads JSON where there is awk and nothing more, and refuses whatever a program might read otherwise.

# json FILE: a line `PATH VALUE` for each value, such as `log-opts/max-size "10m"`; the items of a list are numbered from
# 0. Exit status 1, and one line that says why, where the file is not one object of JSON, is larger than 64 KiB, or holds
# an escape, a key twice in any case, a key of other characters than A-Z a-z 0-9 . _ -, or a character outside ASCII.
json() {
    if [ "$(head -c 65537 "$1" | wc -c)" -gt 65536 ]; then echo "it is larger than 64 KiB" && return 1; fi
    if [ "$(LC_ALL=C tr -d '\11\12\15\40-\176' <"$1" | wc -c)" != 0 ]; then echo "a character is not ASCII" && return 1; fi
    LC_ALL=C awk '
        function refuse(why) { print why; refused = 1; exit 1 }
        function line(rest) { return NR - gsub(/\n/, "", rest) + 1 }
        # No text of the file is told: it may be a password.
        function not_json(why) { refuse("not JSON in line " line(text) why) }
        function shown(token) { return token ~ /^"/ ? "a text" : token }
        function advance() {
            sub(/^[ \t\r\n]+/, "", text)
            if (!match(text, /^"[^"\t\r\n]*"/) && !match(text, /^[][{}:,]/) && !match(text, /^(true|false|null)/) &&
                !match(text, /^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][-+]?[0-9]+)?/))
                if (text == "") refuse("it ends too early"); else not_json("")
            token = substr(text, 1, RLENGTH)
            text = substr(text, RLENGTH + 1)
        }
        function after(close_by) { # whether the object or list goes on
            advance()
            if (token != "," && token != close_by) not_json(": " shown(token) " where , or " close_by " belongs")
            return token == ","
        }
        function key_under(path) {
            if (token !~ /^"[A-Za-z0-9._-]+"$/) not_json(": not a key")
            path = path (path == "" ? "" : "/") substr(token, 2, length(token) - 2)
            if (tolower(path) in seen) refuse(path " is set twice")
            seen[tolower(path)] = 1
            advance()
            if (token != ":") not_json(": " shown(token) " after a key")
            return path
        }
        function value(path, depth, count, name) { # its first token was read
            if (depth > 20) refuse("it is deeper than 20 levels")
            if (token !~ /^[][{}:,]$/ || (token == "{" && text ~ /^[ \t\r\n]*}/) || (token == "[" && text ~ /^[ \t\r\n]*]/)) {
                found = found path " " token (token == "{" ? "}" : token == "[" ? "]" : "") "\n"
                if (token ~ /^[[{]/) advance()
            } else if (token == "{") {
                do { advance(); name = key_under(path); advance(); value(name, depth + 1) } while (after("}"))
            } else if (token == "[") {
                do { advance(); value(path "/" count++, depth + 1) } while (after("]"))
            } else not_json(": " shown(token) " where a value belongs")
        }
        { text = text $0 "\n" }
        END {
            if (refused) exit 1
            if (at = index(text, "\\")) refuse("an escape (\\), which may hide a key, in line " line(substr(text, at)))
            advance()
            if (token != "{") refuse("not an object of JSON")
            value("", 0)
            if (text !~ /^[ \t\r\n]*$/) refuse("something follows its end")
            printf "%s", found
        }' "$1"
}
