# The rules of the kernel's audit trail, as /etc/audit/rules.d gives them.

# audit_rules: all of them, joined as augenrules does it: by number, with nothing between the files. Stands in
# $ROOT. A file that is a link is not read, and its name stands in a line of its own.
audit_rules() {
    for name in $(ls -1v etc/audit/rules.d | grep '\.rules$'); do
        if [ -L "etc/audit/rules.d/$name" ]; then printf '\n-d link /etc/audit/rules.d/%s\n' "$name"; else cat "etc/audit/rules.d/$name"; fi
    done | sed 's/\r$//; s/^[ \t]*//; s/[ \t]*$//; s/[ \t][ \t]*/ /g; /^#/d; /^$/d'
}
