set -eu
# 10:30:60 is refuse at random from 10 half-open connections on, all from 60 on: none of the three may be larger.
startups() {
    case $1 in *:*:*) ;; *) return 1 ;; esac
    for part in 1:10 2:100 3:60; do
        sshd_within "${part#*:}" "$(printf '%s' "$1" | cut -d: -f"${part%:*}")" || return 1
    done
}
sshd_or_end
sshd_at_most maxauthtries 6 "$PARAM_TRIES"
sshd_at_most logingracetime 120 "$PARAM_GRACE"
sshd_at_most maxsessions 10 "$PARAM_SESSIONS"
sshd_at_most clientaliveinterval 0 "$PARAM_IDLE"
sshd_at_most clientalivecountmax 3 3
sshd_want="at most 10:30:60" && sshd_each maxstartups 10:30:100 startups
sshd_end
