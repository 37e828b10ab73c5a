set -eu
enable sysctl-reapply-network.service
