set -eu
join() { printf '%s' "$1" | tr '\n' ','; }
sshd_set Ciphers "$(join "$PARAM_CIPHERS")"
sshd_set MACs "$(join "$PARAM_MACS")"
sshd_set KexAlgorithms "$(join "$PARAM_KEX")"
