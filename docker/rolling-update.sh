#!/bin/sh
# Replaces every replica that Compose runs by one of the image that CONVOY_IMAGE names, and loses no request:
#
#     CONVOY_IMAGE=registry/convoy:2 docker/rolling-update.sh
#
# New replicas are started beside the old ones, as many at once as HAProxy has places for. When all of them are healthy and HAProxy
# itself says that it sends requests to each, as many old ones are stopped, each after it has answered what it had taken; then come
# the next. When new ones cannot be started, do not get ready, or Ctrl-C is pressed, they are removed, and the old ones serve on.
#
#     PATIENCE_S               how long new replicas may take to get ready, in seconds (120)
#     BATCH                    how many are replaced at once, at most: the machine needs memory for these, too
#     HAPROXY_URL              HAProxy's page, where `docker compose port load-balancer 8404` does not tell
#     COMPOSE, DOCKER          the programs, where they have other names
#     COMPOSE_PROJECT_NAME     the project, where it has another name
set -eu

patience_s=${PATIENCE_S:-120}
docker=${DOCKER:-docker}
compose="${COMPOSE:-docker compose} --file $(dirname "$0")/compose.yaml"

# What is not to outlive a failure: the replicas that are not among these, while `phase` is `start`.
known=""
phase=none

say() {
    echo "$*" >&2
}

refuse() {
    say "$*"
    exit 1
}

# The service's containers, whatever their state.
containers() {
    $docker ps --all --quiet --no-trunc --filter "label=com.docker.compose.project=$project" \
        --filter label=com.docker.compose.service=convoy --filter label=com.docker.compose.oneoff=False
}

# The containers that are not known.
fresh() {
    for container in $(containers); do
        case " $known " in
        *" $container "*) ;;
        *) echo "$container" ;;
        esac
    done
}

count() {
    echo $#
}

# HAProxy's servers, one a line: backend, address, state.
servers() {
    curl --fail --silent --show-error --max-time 5 "$haproxy/;csv" | awk -F , '
        { gsub(/"[^"]*"/, "") }
        NR == 1 { sub(/^# /, ""); for (i = 1; i <= NF; i++) column[$i] = i; next }
        $1 ~ /^(http|grpc)_replicas$/ && $2 != "BACKEND" {
            split($column["status"], state, " ")
            address = $column["addr"]
            print $1, address == "" ? "-" : address, state[1]
        }'
}

# How many places HAProxy has for further replicas. One that has just gone keeps its place for a while.
free_places() {
    servers | awk '$3 == "MAINT" { free[$1]++ }
        END { http = free["http_replicas"] + 0; grpc = free["grpc_replicas"] + 0; print http < grpc ? http : grpc }'
}

# Whether HAProxy sends HTTP and gRPC to this container.
is_used() {
    addresses=$($docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1")
    servers | awk -v addresses="$addresses" '
        BEGIN { for (n = split(addresses, own, " "); n > 0; n--) { http[own[n] ":8000"]; grpc[own[n] ":8001"] } }
        $3 == "UP" && $1 == "http_replicas" && $2 in http { has_http = 1 }
        $3 == "UP" && $1 == "grpc_replicas" && $2 in grpc { has_grpc = 1 }
        END { exit !(has_http && has_grpc) }'
}

# Asks the rest every second until it is so, for what is left of the patience.
wait_until() {
    problem=$1
    shift
    until "$@"; do
        [ "$waited_s" -lt "$patience_s" ] || refuse "after $patience_s s $problem"
        sleep 1
        waited_s=$((waited_s + 1))
    done
}

is_healthy() {
    [ "$($docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]
}

has_place() {
    free=$(free_places)
    [ "${free:-0}" -gt 0 ]
}

clean_up() {
    status=$?
    trap - EXIT
    # Whoever presses Ctrl-C again must not leave half of this.
    trap '' INT TERM HUP
    if [ "$phase" = start ]; then
        # shellcheck disable=SC2046
        set -- $(fresh)
        if [ $# -gt 0 ]; then
            say "removing the $# new replicas: what they have taken they answer first"
            $docker stop "$@" >/dev/null || true
            $docker rm --force "$@" >/dev/null || true
        fi
        say "$replaced of $total replicas are new; the old ones serve on"
    elif [ "$phase" = stop ]; then
        say "interrupted while old replicas were stopped: both kinds serve, and another run replaces them all"
    fi
    exit "$status"
}

[ "${BATCH:-1}" -ge 1 ] || refuse "BATCH is $BATCH: at least one replica must be replaced at once"
command -v curl >/dev/null || refuse "curl is not there: it asks HAProxy whom it sends requests to"
# shellcheck disable=SC2086
set -- $($compose ps --quiet convoy)
[ $# -gt 0 ] || refuse "no replica runs: there is nothing to replace"
project=$($docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$1")
old=$(containers)
for container in $old; do
    # Compose counts it, and would start it instead of a new one.
    [ "$($docker inspect --format '{{.State.Running}}' "$container")" = true ] ||
        refuse "the replica $container does not run: start it or remove it (docker rm) first"
done
# shellcheck disable=SC2086
total=$(count $old)
replaced=0
haproxy=${HAPROXY_URL:-http://$($compose port load-balancer 8404)} ||
    refuse "the load balancer does not run: nothing could say when an old replica may go"
[ -n "$(servers)" ] || refuse "HAProxy cannot be asked at $haproxy: nothing could say when an old replica may go"

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
while [ "$replaced" -lt "$total" ]; do
    waited_s=0
    wait_until "HAProxy has no free place for another replica: scale down first, or give server-template more" has_place
    batch=$((total - replaced))
    [ "$batch" -le "$free" ] || batch=$free
    [ "$batch" -le "${BATCH:-$batch}" ] || batch=$BATCH

    echo "starting $batch new replicas beside $total"
    known=$(containers | tr '\n' ' ')
    phase=start
    $compose up --detach --no-build --no-deps --no-recreate --scale "convoy=$((total + batch))" convoy
    new=$(fresh)
    # shellcheck disable=SC2086
    [ "$(count $new)" -eq "$batch" ] || refuse "Compose has not started $batch new replicas: $new"
    waited_s=0
    for container in $new; do
        wait_until "the new replica $container is not healthy" is_healthy "$container"
    done
    for container in $new; do
        wait_until "HAProxy does not send requests to the new replica $container" is_used "$container"
    done

    phase=stop
    # shellcheck disable=SC2086
    set -- $old
    while [ "$batch" -gt 0 ]; do
        echo "stopping $1"
        $docker stop "$1" >/dev/null
        $docker rm "$1" >/dev/null
        shift
        batch=$((batch - 1))
        replaced=$((replaced + 1))
    done
    old=$*
    phase=none
done
