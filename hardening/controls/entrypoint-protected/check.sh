# The words of entrypoint, command and health check that name a file, and the folders that they lie in.
set -eu
cd "$ROOT"
grep -q '"config"' "$IMAGE_CONFIG" || { echo "no image configuration: nothing to look at"; exit 1; }
bad=$(
    next=1 foreign=$(foreign 0 50)
    for word in $IMAGE_ENTRYPOINT '&&' $IMAGE_HEALTHCHECK; do
        word=$(printf '%s' "$word" | tr -d "\"'()" | sed 's#/\(\.\{0,1\}/\)*#/#g')
        # Whether it is started itself, and not an argument: the first word, and those after a shell, an interpreter and the like.
        runs=$next
        case ${word##*/} in
            CMD | CMD-SHELL | exec | . | source | *sh | env | nice | tini | dumb-init | java | node* | perl | php* | python* | ruby* | -- | '&&' | '||' | '|' | *';') next=1 ;;
            -* | [A-Za-z_]*=*) ;;
            *) next='' ;;
        esac
        case $word in /*) ;; *) continue ;; esac
        case $word in *..* | *'*'* | *'?'* | *'['*) [ -z "$runs" ] || echo "$word: a name that leads elsewhere" && continue ;; esac
        at=${word%;}
        # A link of the image leads on inside the image.
        for _ in 1 2 3 4 5 6 7 8; do
            [ -L ".$at" ] || break
            case $(readlink -- ".$at") in /*) at=$(readlink -- ".$at") ;; *) at=$(dirname -- "$at")/$(readlink -- ".$at") ;; esac
        done
        case $runs$at in 1/tmp/* | 1/var/tmp/* | 1/dev/shm/* | 1/run/* | 1/var/run/*) echo "$word: is started from a folder for what programs write" && continue ;; esac
        kept='-type d -perm -1000 -uid 0' groups=$foreign
        # The data that a program is given, and not code.
        if [ -z "$runs" ] && [ -d ".$at" ]; then groups='! -gid 0 ! -gid 50'; fi
        if [ ! -e ".$at" ]; then
            # Whoever may write to its folder brings it.
            [ -n "$runs" ] || continue
            kept=-false
            while [ ! -e ".$at" ]; do at=$(dirname -- "$at"); done
        fi
        while :; do
            find ".$at" -maxdepth 0 ! -type l \( ! -uid 0 -o -perm -0002 -o \( -perm -0020 $groups \) \) ! \( $kept \) \
                -printf "$word: others than root may write to $at (mode %m, %U:%G)\n"
            [ "$at" != / ] || break
            at=$(dirname -- "$at")
        done
    done | sort -u
    # Where programs start is where several of them look for code first.
    sed -nE 's/^  "WorkingDir": "(.*)",?$/\1/p' "$IMAGE_CONFIG" | tr -s / | while IFS= read -r folder; do
        case $folder/ in
            *..* | *\\*) echo "$folder: a working directory with a name that leads elsewhere" ;;
            /tmp/* | /var/tmp/* | /dev/shm/* | /run/* | /var/run/*) echo "$folder: the working directory is for what programs write" ;;
            *) find ".$folder" -maxdepth 0 -type d -perm -0002 -printf "$folder: the working directory is everybody's (mode %m)\n" 2>/dev/null || true ;;
        esac
    done
    sed -nE '/^  "OnBuild": \[$/,/^  \]/s/^   "(.*)",?$/\1/p' "$IMAGE_CONFIG" | while IFS= read -r step; do
        printf '%s\n' "$PARAM_ONBUILD" | grep -qxF -e "$step" || echo "ONBUILD $step: runs in every build on this image"
    done
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
