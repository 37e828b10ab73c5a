set -eu
sshd_or_end
sshd_is permitrootlogin prohibit-password no
sshd_end
