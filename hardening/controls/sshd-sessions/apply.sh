set -eu
sshd_set LogLevel "$PARAM_LOG_LEVEL"
sshd_set PermitUserEnvironment no
sshd_set StrictModes yes
sshd_set GSSAPIAuthentication no
