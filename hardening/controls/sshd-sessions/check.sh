set -eu
sshd_or_end
sshd_is loglevel INFO "$(printf '%s' "$PARAM_LOG_LEVEL" | tr '[:upper:]' '[:lower:]')"
sshd_is permituserenvironment no no
sshd_is strictmodes yes yes
sshd_is gssapiauthentication no no
sshd_end
