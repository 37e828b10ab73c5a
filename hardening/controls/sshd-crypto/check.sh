set -eu
sshd_or_end
sshd_only ciphers "sshd's own" "$PARAM_CIPHERS"
sshd_only macs "sshd's own" "$PARAM_MACS"
sshd_only kexalgorithms "sshd's own" "$PARAM_KEX"
sshd_end
