set -eu
sshd_set PermitRootLogin no
