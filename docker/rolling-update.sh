#!/bin/sh
# Replaces every replica that Compose runs by one of the image that CONVOY_IMAGE names, and loses no request:
#
#     CONVOY_IMAGE=registry/convoy:2 docker/rolling-update.sh
#
# As many new replicas are started as there are old ones. When all are healthy the old ones are stopped one by one, each after
# it has answered what it had taken. When one does not become healthy, the new ones are removed, and the old ones have served all the time.
# Set COMPOSE and DOCKER where the programs have other names, and COMPOSE_PROJECT_NAME where the project has.
set -eu

patience_s=${PATIENCE_S:-120}
docker=${DOCKER:-docker}
compose="${COMPOSE:-docker compose} --file $(dirname "$0")/compose.yaml"

old=$($compose ps --quiet convoy)
count=$(echo "$old" | wc -w)
if [ "$count" -eq 0 ]; then
    echo "no replica runs: there is nothing to replace" >&2
    exit 1
fi

echo "starting $count new replicas beside $count old ones"
$compose up --detach --no-build --no-deps --no-recreate --scale "convoy=$((count * 2))" convoy
new=""
for container in $($compose ps --quiet convoy); do
    case "$old" in
    *"$container"*) ;;
    *) new="$new $container" ;;
    esac
done

waited=0
for container in $new; do
    until [ "$($docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]; do
        if [ "$waited" -ge "$patience_s" ]; then
            echo "$container is not healthy after $patience_s s: the new replicas are removed" >&2
            # shellcheck disable=SC2086
            $docker rm --force $new
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
done
# HAProxy looks for new addresses every half second and then checks them.
sleep 3

for container in $old; do
    echo "stopping $container"
    $docker stop "$container" >/dev/null
    $docker rm "$container" >/dev/null
done
