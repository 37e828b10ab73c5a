set -eu
enable docker.service docker.socket
