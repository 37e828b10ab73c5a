set -eu
case $RUN_STATUS in
    0)
        echo "ran with --read-only --cap-drop ALL --security-opt no-new-privileges and ended with 0"
        tail -n 5 -- "$RUN_LOG"
        ;;
    '')
        echo "the image was not run: nothing is known of it (does its image.toml name a smoke command?)"
        exit 1
        ;;
    *)
        echo "with --read-only --cap-drop ALL --security-opt no-new-privileges it ended with status $RUN_STATUS"
        tail -n 20 -- "$RUN_LOG"
        exit 1
        ;;
esac
