set -eu
if [ -n "$IMAGE_HEALTHCHECK" ] && [ "$IMAGE_HEALTHCHECK" != NONE ]; then
    echo "health check: $IMAGE_HEALTHCHECK"
    exit 0
fi
if [ "$(printf '%s' "$IMAGE_HEALTHCHECK_REASON" | wc -w)" -ge 3 ]; then
    echo "no health check, because: $IMAGE_HEALTHCHECK_REASON"
    exit 0
fi
echo "no health check, and no reason for none in words"
exit 1
