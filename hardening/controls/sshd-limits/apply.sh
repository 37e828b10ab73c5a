set -eu
sshd_set MaxAuthTries "$PARAM_TRIES"
sshd_set LoginGraceTime "$PARAM_GRACE"
sshd_set MaxSessions "$PARAM_SESSIONS"
sshd_set MaxStartups 10:30:60
sshd_set ClientAliveInterval "$PARAM_IDLE"
sshd_set ClientAliveCountMax 3
