# Asks a host that exists, as root, and changes nothing on it: stands before the lines that pipelines/host_check.py adds
# and comes in on standard input, in a mount namespace of its own. In that all of the host is read-only. What it notes
# lies in memory that has no path but that of an open file of this shell ($notes), so that it hides nothing of the host.
# One line a record: `record NAME STATUS out=BASE64 err=BASE64`; the last line is `end COUNT`.
set -u
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
notes=/proc/$$/fd/9
export TMPDIR=$notes
most_bytes=16384

give_up() { # WHY: nothing was asked
    echo "$*" >&2
    exit 1
}

places() { # of all mounts, a line each: whether it is writable, and where, as the kernel writes that
    awk '{ last[$5] = $6 } END { for (at in last) print (last[at] ~ /^ro(,|$)/ ? "closed" : "open"), at }' /proc/self/mountinfo
}

path() { # a space is \040 to the kernel, which printf takes as \0040
    printf %b "$(printf %s "$1" | sed 's/\\/\\0/g')"
}

read_only() { # takes from this namespace the way to write to the host; devices and sockets stay what they are
    mount -t tmpfs -o size=1g,mode=1777 tmpfs /run || give_up "no memory can be mounted"
    exec 9</run
    umount -l /run || give_up "what was mounted on /run for a moment stays there"
    places >$notes/places || give_up "nothing can be noted in memory"
    while read -r _ place; do
        mount -o remount,bind,ro "$(path "$place")" 2>/dev/null || :
    done <$notes/places
    places >$notes/places
    while read -r state place; do # what another mount hides has no path any more, and needs none
        if [ "$state" = open ] && mountpoint -q "$(path "$place")"; then
            give_up "this cannot be made read-only, so nothing is asked: $place"
        fi
    done <$notes/places
}

# Stands before each check: a host goes on while it is asked, so that files which go meanwhile are no complaint of find's.
race='find() (
    left=$# begun=""
    while [ "$left" -gt 0 ]; do
        case $begun$1 in -[HLP]) ;; -* | "(" | !) begun=1 && set -- "$@" -ignore_readdir_race ;; esac
        set -- "$@" "$1" && shift
        left=$((left - 1))
    done
    [ -n "$begun" ] || set -- "$@" -ignore_readdir_race
    command find "$@"
)'

check() { # NAME LIVE SECONDS SCRIPT [NAME=VALUE…]: one control's check, with its status and words kept in memory
    name=$1 live=$2 seconds=$3 script=$4
    shift 4
    env "$@" ROOT=/ LIVE="$live" timeout --kill-after=5 "$seconds" sh -c "$race
$script" "${name%.*}" \
        >"$notes/$name.out" 2>"$notes/$name.err" </dev/null 9<&-
    echo $? >"$notes/$name.status"
}

report() { # NAME…: sends what was kept
    for name; do
        printf 'record %s %s out=%s err=%s\n' "$name" "$(cat "$notes/$name.status")" \
            "$(head -c "$most_bytes" "$notes/$name.out" | base64 -w0)" \
            "$(head -c "$most_bytes" "$notes/$name.err" | base64 -w0)"
    done
    echo "end $#"
}
