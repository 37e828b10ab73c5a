# The words of entrypoint, command and health check that name a file, and the folders that they lie in.
set -eu
cd "$ROOT"
grep -q '"config"' "$IMAGE_CONFIG" || { echo "no image configuration: nothing to look at"; exit 1; }
bad=$(
    for word in $IMAGE_ENTRYPOINT $IMAGE_HEALTHCHECK; do
        case $word in /*) ;; *) continue ;; esac
        case $word in *..* | *'*'* | *'?'* | *'['*) continue ;; esac
        at=$word
        # A link of the image leads on inside the image.
        for _ in 1 2 3 4 5 6 7 8; do
            [ -L ".$at" ] || break
            case $(readlink -- ".$at") in /*) at=$(readlink -- ".$at") ;; *) at=$(dirname -- "$at")/$(readlink -- ".$at") ;; esac
        done
        [ -e ".$at" ] || continue
        while :; do
            find ".$at" -maxdepth 0 ! -type l \( ! -uid 0 -o -perm -0002 -o \( -perm -0020 ! -gid 0 ! -gid 50 \) \) ! \( -type d -perm -1000 -uid 0 \) \
                -printf "$word: others than root may write to $at (mode %m, %U:%G)\n"
            [ "$at" != / ] || break
            at=$(dirname -- "$at")
        done
    done | sort -u
    # What lies in a volume is not the image's any more: another image, or whoever wrote to it before, brings it.
    sed -nE '/^  "Volumes": \{$/,/^  \}/s/^   "(.*)": .*/\1/p' "$IMAGE_CONFIG" | tr -s / | sed 's#\(.\)/$#\1#' | while IFS= read -r volume; do
        printf '%s\n' "$PARAM_VOLUMES" | grep -qxF -e "$volume" && continue
        case $volume/ in
            *..* | *\\* | [!/]* | *[[:cntrl:]]*) echo "$volume: a volume with a name that leads elsewhere" ;;
            // | /bin/* | /boot/* | /dev/* | /etc/* | /lib*/* | /opt/ | /proc/* | /root/* | /run/ | /sbin/* | /sys/* | /usr/* | /var/ | /var/lib/ | /var/lib/dpkg/* | /var/lib/apt/*)
                echo "$volume: a volume takes the place of a folder of the system" ;;
        esac
        for word in $IMAGE_ENTRYPOINT $IMAGE_HEALTHCHECK; do
            case $word in "$volume"/*) echo "$word: lies in the volume $volume" ;; esac
        done
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "what the image starts belongs to root: ${IMAGE_ENTRYPOINT:-nothing by itself}"
