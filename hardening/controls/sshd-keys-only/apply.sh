set -eu
sshd_set PubkeyAuthentication yes
sshd_set PasswordAuthentication no
sshd_set KbdInteractiveAuthentication no
sshd_set PermitEmptyPasswords no
sshd_set HostbasedAuthentication no
sshd_set IgnoreRhosts yes
sshd_set UsePAM yes
