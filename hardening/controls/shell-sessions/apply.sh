# Interactive shells that are no login shells read this file only.
set -eu
cd "$ROOT"
[ -f etc/bash.bashrc ] && [ ! -L etc/bash.bashrc ] || exit 0
[ "$(sed -n 's/^[[:space:]]*umask[[:space:]]*//p' etc/bash.bashrc)" != "$PARAM_UMASK" ] || exit 0
sed -i '/^[[:space:]]*umask[[:space:]]/d' etc/bash.bashrc
append etc/bash.bashrc "umask $PARAM_UMASK"
