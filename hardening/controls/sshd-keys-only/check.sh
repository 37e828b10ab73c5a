set -eu
sshd_or_end
sshd_is pubkeyauthentication yes yes
sshd_is passwordauthentication yes no
sshd_is kbdinteractiveauthentication yes no
sshd_is permitemptypasswords no no
sshd_is hostbasedauthentication no no
sshd_is ignorerhosts yes yes
sshd_is usepam no yes
sshd_end
