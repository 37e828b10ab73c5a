# With LIVE=1 the running kernel is asked, else the files of the tree.
set -eu
settings_hold "$(printf '%s\n' "$PARAM_SETTINGS" "$PARAM_OVER")"
