set -eu
case $PARAM_TCP in
    no) sshd_set DisableForwarding yes && sshd_set AllowTcpForwarding no ;;
    local) sshd_set DisableForwarding no && sshd_set AllowTcpForwarding local ;;
    all) sshd_set DisableForwarding no && sshd_set AllowTcpForwarding yes ;;
esac
sshd_set AllowAgentForwarding no
sshd_set AllowStreamLocalForwarding no
sshd_set X11Forwarding no
sshd_set PermitTunnel no
sshd_set GatewayPorts no
