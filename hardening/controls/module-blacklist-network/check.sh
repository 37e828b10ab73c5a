set -eu
modules_barred "$PARAM_MODULES"
