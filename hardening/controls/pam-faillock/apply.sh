set -eu
pam_add pam_faillock.so common-auth
