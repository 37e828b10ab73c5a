# What the boot gate runs, as root, in a machine that has just booted. Comes in as a systemd credential; the lines that
# call it are added by images/boot/guest.py. It looks, reports over a virtio port, and turns the machine off.
# One line a record: `record NAME STATUS out=BASE64 err=BASE64`; the last line is `end COUNT`.
set -u
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/null
port=/dev/virtio-ports/goldsmith
results=/run/goldsmith-boot
most_encoded=87380 # characters of base64, which are 65,535 bytes
count=0
mkdir -m 700 "$results" && [ -c "$port" ] && exec 3>"$port" || {
    echo "goldsmith: no way to report"
    systemctl poweroff --force --force
    exit 1
}

capture() { # NAME COMMAND…: its status and words, kept in files
    name=$1
    shift
    "$@" >"$results/$name.out" 2>"$results/$name.err"
    echo $? >"$results/$name.status"
}

encoded() { # FILE
    [ ! -s "$1" ] || base64 -w0 "$1"
}

report() { # NAME: send what was captured; what did not come to its end has no status, which breaks the report
    status=''
    read -r status <"$results/$1.status"
    printf "record %s %s out=%.${most_encoded}s err=%.${most_encoded}s\n" "$1" "$status" \
        "$(encoded "$results/$1.out")" "$(encoded "$results/$1.err")" >&3
    count=$((count + 1))
}

observe() { # NAME FUNCTION…
    capture "$@"
    report "$1"
}

check() { # CONTROL SECONDS SCRIPT [NAME=VALUE…]: one control's check, as on a tree, but of what runs
    capture "$1" asked "$@"
}

asked() ( # the same, in a shell of its own
    control=$1 seconds=$2 script=$3
    shift 3
    export "$@" ROOT=/ LIVE=1 LC_ALL=C
    ulimit -f 32768 # 16 MiB: to report what it said, a shell holds all of it
    exec timeout --kill-after=5 "$seconds" sh -c "$script" "$control"
)

completed() { # SECONDS: wait for the end of the boot; state, default target, and what is still waited for
    state=$(timeout "$1" systemctl is-system-running --wait)
    echo "state $state"
    target=$(systemctl get-default) || return
    active=$(systemctl is-active "$target")
    echo "target $target $active"
    read -r uptime _ </proc/uptime
    echo "uptime $uptime"
    case "$state $active" in 'running active' | 'degraded active') return ;; esac
    systemctl list-jobs --no-legend --plain | sed 's/^/waiting /'
}

failed_units() { # how many units there are; which failed or were started again and again, and their last words
    systemctl list-units --all --no-legend --plain --full >"$results/units"
    echo "units $(wc -l <"$results/units")"
    {
        awk '$3 == "failed" || $4 == "failed" || $4 == "auto-restart" { print $1, $4 }' "$results/units"
        systemctl show '*.service' --property=Id,NRestarts | awk -F= '
            function told() { if (again > 0) print id, "restarted " again " times"; again = 0 }
            $1 == "Id" { id = $2 }
            $1 == "NRestarts" { again = $2 }
            NF == 0 { told() }
            END { told() }'
    } | sort -u >"$results/failed"
    while read -r unit how; do
        echo "failed $unit $how"
        journalctl --boot --unit="$unit" --lines=5 --output=cat --no-pager | sed "s/^/log /"
    done <"$results/failed"
}

listening() { # every socket that listens; the kernel's own count of TCP listeners shows whether all are seen
    for _ in 1 2 3; do # ss looks for the holders before the sockets: one opened in between, as by DHCP, has none yet
        kernel=$(awk '$4 == "0A"' /proc/net/tcp /proc/net/tcp6 | wc -l)
        sockets=$(ss -Hltnup) || return
        [ -n "$(echo "$sockets" | grep -v 'users:')" ] || break # also where nothing listens: an empty line is no socket
        sleep 1
    done
    printf 'kernel %s\n%s\n' "$kernel" "$sockets"
}

identity() { # what a machine makes for itself at its first boot, and which boot this is
    echo "boot $(cat /proc/sys/kernel/random/boot_id)"
    echo "machine-id $(cat /etc/machine-id)"
    for key in /etc/ssh/ssh_host_*_key.pub; do
        [ ! -f "$key" ] || echo "$key $(sha256sum <"$key")"
    done
}

cloud_init() { # what cloud-init says of itself, and for which instance
    if ! command -v cloud-init >/dev/null; then
        echo absent
        return
    fi
    echo "instance $(cat /var/lib/cloud/data/instance-id)"
    echo "result $(tr -d '\n' </run/cloud-init/result.json)"
    echo "status $(tr -d '\n' </run/cloud-init/status.json)"
}

finish() { # COMMAND…: all was sent; turn the machine off
    echo "end $count" >&3
    exec 3>&-
    "$@"
}
