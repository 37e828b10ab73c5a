# For awk: paths below folders that everybody may write to, and the words before them that show what they are for.
# plain(TEXT): with such paths in one form. next_path(): the next one of `rest` into `path`, what stands before it into `before`;
# `code` is how names of code and settings end, `passing` those of data. is_code(LABEL) and is_data(LABEL): what is called so.
everybodys='
    BEGIN {
        place = "[^]A-Za-z0-9_./~})>*%](-[A-Za-z])?/(tmp|var/tmp|dev/shm)(/[^]:,;|&<>(){}\"\047` \t]*)?([^A-Za-z0-9_./-]|$)"
        code = "\\.(so|conf|cnf|ini|php|py|[cm]?js|rb|pl|lua|jar|class|sh|bash|zsh)$|[*]$"
        passing = "\\.(sock|socket|pid|lock|log|db|sqlite3?)$"
        loads = "(^|_)(EXEC|LOAD|INCLUDE|PREPEND|REQUIRE|PLUGIN|MODULE|EXTENSION|LIB|CLASS_?PATH|SCRIPT|HOOK|COMMAND|PROGRAM|[A-Z]*SHELL|AGENT|PRELOAD|PAGER|EDITOR|CONFIG|CONF(_|$)" \
            "|ENV(IRONMENT)?_?FILE|CATALOG|[A-Z]*COMPIL|OPCACHE|PYCACHE|BOOTSNAP|NUMBA|TRITON|INDUCTOR|DATA_(HOME|DIRS))"
        data = "(^|_)[A-Z0-9]*(TMP|TEMP|CACHES?|LOGS?|LOGGC|PIDS?|SOCK|SOCKETS?|LOCKS?|SPOOL|UPLOADS?|SESSIONS?|RUNTIME|MULTIPROC|OUTPUT|DATA|DATABASE|DB|STORAGE|DUMPS?|HIST|HISTORY" \
            "|TRACE|COVERAGE|SCRATCH|BACKUPS?|KRB5CC|EXCLUDE|IGNORE|SKIP)(DIRS?|DIRECTORY|FILES?|PATHS?|NAMES?|FOLDERS?|ROOT|PREFIX)?(_|$)"
    }
    function plain(text) {
        gsub(/[a-z]:\/\/[A-Za-z0-9]/, "::", text); gsub(/\/(\.?\/)+/, "/", text)
        while (sub(/\/[^\/ \t:,;="\047]+\/\.\.(\/|$)/, "/", text)) continue
        return text
    }
    function next_path() {
        if (!match(rest, place)) return 0
        before = before substr(rest, 1, RSTART); path = substr(rest, RSTART + 1, RLENGTH - 1); rest = substr(rest, RSTART + RLENGTH - 1)
        sub(/[^A-Za-z0-9_.\/*-]$/, "", path)
        return 1
    }
    function word_of(label) { label = toupper(label); gsub(/[^A-Z0-9]+/, "_", label); sub(/^_*NPM_CONFIG_/, "", label); return label }
    function is_code(label) { return word_of(label) ~ loads }
    function is_data(label) { return word_of(label) ~ data && !is_code(label) }'
