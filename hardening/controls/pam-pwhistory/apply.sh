set -eu
pam_add pam_pwhistory.so common-password
