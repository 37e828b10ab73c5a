set -eu
sshd_or_end
[ "$PARAM_TCP" != no ] || sshd_is disableforwarding no yes
[ "$PARAM_TCP" = all ] || sshd_is allowtcpforwarding yes "$PARAM_TCP"
sshd_is allowagentforwarding yes no
sshd_is allowstreamlocalforwarding yes no
sshd_is x11forwarding no no
sshd_is permittunnel no no
sshd_is gatewayports no no
sshd_end
