#!/bin/sh
# Replaces every replica that Compose runs by one of the image that CONVOY_IMAGE names, and loses no request:
#
#     docker/rolling-update.sh [OPTION OF COMPOSE]…
#
# New replicas are started beside the old ones, as many at once as HAProxy has places for. When all of them are healthy and HAProxy
# itself says that it sends requests to each, as many old ones are stopped, each after it has answered what it had taken; then come
# the next. When new ones cannot be started, do not get ready, or Ctrl-C is pressed, they are removed, and the old ones serve on.
# docs/upgrading.md says more.
#
# The options are those with which the replicas were started, as `--file docker/compose.yaml --file docker/gpu.yaml`; without any it is the
# compose file beside this script. Variables, which belong in the file `.env`:
#
#     CONVOY_IMAGE             the new image
#     REPLICAS                 how many there are to be (as many as there are)
#     BATCH                    how many are replaced at once, at most: the machine needs memory for these, too
#     PATIENCE_S               how long new replicas may take to get ready, in seconds (120)
#     ACCEPT_CHANGES=1         new replicas may differ in more than their image
#     HAPROXY_URL              HAProxy's page, where `docker compose port load-balancer 8404` does not tell
#     COMPOSE, DOCKER          the programs, where they have other names
#     COMPOSE_PROJECT_NAME     the project, where it has another name
set -eu

patience_s=${PATIENCE_S:-120}
docker=${DOCKER:-docker}
compose=${COMPOSE:-docker compose}
[ $# -gt 0 ] || set -- --file "$(dirname "$0")/compose.yaml"
# Ctrl-C reaches every program that this terminal runs: one in a session of its own it does not.
apart=$(command -v setsid || true)

trap '' PIPE

# What is not to outlive a failure: the replicas that are not among these, while `phase` is `start`.
known=""
phase=none

# Whoever would read it may be gone: the terminal of a lost connection, a program behind a pipe that Ctrl-C has ended, too.
say() {
    echo "$*" >&2 || true
}

tell() {
    echo "$*" || true
}

refuse() {
    say "$*"
    exit 1
}

whole_number() {
    case $2 in
    "" | *[!0-9]* | 0*) refuse "$1 is $2: it must be a whole number, and not 0" ;;
    esac
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

# What a container was given, a line each: what is not its image's of variables, command, user and health check, and its folders, networks,
# limits, devices and rights.
settings() {
    own='{{range .Config.Env}}{{json .}}{{println}}{{end}}command={{json .Config.Cmd}}{{println}}entrypoint={{json .Config.Entrypoint}}
user={{json .Config.User}}
start_period={{with .Config.Healthcheck}}{{.StartPeriod}}{{end}}'
    image=$($docker inspect --format '{{.Image}}' "$1")
    {
        $docker inspect --format "$own" "$image" | sed 's/^/image /'
        $docker inspect --format "$own" "$1" | sed 's/^/own /'
    } | awk '{ line = substr($0, index($0, " ") + 1) } $1 == "image" { of_image[line] } $1 == "own" && !(line in of_image) { print line }'
    $docker inspect --format '{{range .Mounts}}{{.Destination}}={{.Type}} {{.Source}} {{.RW}}{{println}}{{end}}' "$1"
    $docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}network {{$name}}=yes{{println}}{{end}}' "$1"
    $docker inspect --format '{{with .HostConfig}}cpus={{.NanoCpus}}
memory={{.Memory}}
devices={{json .DeviceRequests}}
ulimits={{json .Ulimits}}
read_only={{.ReadonlyRootfs}}
cap_add={{json .CapAdd}}
cap_drop={{json .CapDrop}}
security_opt={{json .SecurityOpt}}
restart={{json .RestartPolicy}}
logging={{json .LogConfig}}{{end}}' "$1" | sed -E 's/=(null|\[\])$/=/'
}

# In what the second container's settings are not the first one's. Their values may be secrets, and are not said.
differences() {
    {
        settings "$1" | sed 's/^/old /'
        settings "$2" | sed 's/^/new /'
    } | awk '
        NF > 1 { line = substr($0, 5); name = line; sub(/=.*/, "", name); sub(/^"/, "", name); names[name]; given[$1, name] = line }
        END {
            for (name in names)
                if (!(("new", name) in given)) print "  they would lack " name
                else if (!(("old", name) in given)) print "  they would have " name
                else if (given["old", name] != given["new", name]) print "  they would have another " name
        }' | sort
}

# HAProxy's servers, one a line: backend, address, state.
servers() {
    curl --noproxy '*' --fail --silent --show-error --max-time 5 "$haproxy/;csv" | awk -F , '
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

# Why a new replica does not get ready, before it goes with its log: what its health check was told, and what it logged last.
tell_why() {
    case $($docker inspect --format '{{with .State.Health}}{{.Status}}{{end}} {{.State.StartedAt}}' "$1") in
    "healthy "* | *" 0001-"*) return ;;
    esac
    said=$($docker inspect --format '{{with .State.Health}}{{range .Log}}{{println .Output}}{{end}}{{end}}' "$1" | grep . | tail -n 1)
    say "$1 says: ${said:-nothing to its health check}
its log ends:
$($docker logs --tail 5 "$1" 2>&1)"
}

# What of the batch is under way may be ended at once, where `phase` is not `stop`.
heed_signals() {
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

clean_up() {
    status=$?
    trap - EXIT
    # Whoever presses Ctrl-C again must not leave half of this, and nothing here may end it.
    trap '' INT TERM HUP PIPE
    set +e
    if [ "$phase" = start ]; then
        # shellcheck disable=SC2046
        set -- $(fresh)
        # Of a failure, but not of a signal.
        for container in "$@"; do
            [ "$status" -ge 128 ] || tell_why "$container"
        done
        if [ $# -gt 0 ]; then
            say "removing the $# new replicas: what they have taken they answer first"
            $docker stop "$@" >/dev/null
            $docker rm --force "$@" >/dev/null
        fi
    fi
    if [ "$phase" = stop ]; then
        say "the new ones and what is left of the old ones serve; when that is mended, REPLICAS=$total $0 makes $total new ones of all"
    elif [ "$started" -lt "$total" ]; then
        say "$started of $total replicas are new; the old ones serve on"
    fi
    exit "$status"
}

case ${ACCEPT_CHANGES:-} in
"" | 1) ;;
*) refuse "ACCEPT_CHANGES is $ACCEPT_CHANGES: it must be 1, or not be there" ;;
esac
whole_number PATIENCE_S "$patience_s"
whole_number BATCH "${BATCH:-1}"
whole_number REPLICAS "${REPLICAS:-1}"
for program in curl flock; do
    command -v $program >/dev/null || refuse "$program is not there, and is needed"
done
# shellcheck disable=SC2086
running=$($compose "$@" ps --quiet convoy)
[ -n "$running" ] || refuse "no replica runs: there is nothing to replace"
project=$($docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "${running%%
*}")
# Two at once would each take the other's new replicas for its own, wherever the script lies.
locks=${TMPDIR:-/tmp}/convoy-rolling-update-$(id -u)
mkdir -p -m 700 "$locks"
[ -O "$locks" ] && [ ! -L "$locks" ] || refuse "$locks is somebody else's: it must not be there, or be yours"
exec 9>>"$locks/$($docker info --format '{{.ID}}' | tr -c '[:alnum:]\n' -)-$project"
flock --nonblock 9 || refuse "another rolling update of $project is under way"
old=$(containers)
for container in $old; do
    # Compose counts it, and would start it instead of a new one.
    [ "$($docker inspect --format '{{.State.Running}}' "$container")" = true ] ||
        refuse "the replica $container does not run: start it or remove it (docker rm) first"
done
# shellcheck disable=SC2086
total=${REPLICAS:-$(count $old)}
started=0
haproxy=${HAPROXY_URL:-http://$($compose "$@" port load-balancer 8404)} ||
    refuse "the load balancer does not run: nothing could say when an old replica may go"
[ -n "$(servers)" ] || refuse "HAProxy cannot be asked at $haproxy: nothing could say when an old replica may go"

# A registry's image is pulled: version 1 of Compose would build one under its name.
image=$($compose "$@" config | awk '
    /^[^ ]/ { is_services = $1 == "services:" }
    /^  [^ ]/ { is_convoy = is_services && $1 == "convoy:" }
    is_convoy && /^    image:/ { print $2 }')
$docker image inspect "$image" >/dev/null 2>&1 || $docker pull "$image" ||
    refuse "the image $image is neither here nor can it be pulled"

trap clean_up EXIT
heed_signals
while [ "$started" -lt "$total" ]; do
    waited_s=0
    wait_until "HAProxy has no free place for another replica: scale down first, or give server-template more" has_place
    batch=$((total - started))
    [ "$batch" -le "$free" ] || batch=$free
    [ "$batch" -le "${BATCH:-$batch}" ] || batch=$BATCH

    known=$(containers | tr '\n' ' ')
    # shellcheck disable=SC2086
    there=$(count $known)
    tell "starting $batch new replicas beside $there"
    phase=start
    # Made first and looked at, since what was given to the old ones on a command line, their API keys for instance, is forgotten.
    $compose "$@" up --no-start --no-build --no-deps --no-recreate --scale "convoy=$((there + batch))" convoy
    new=$(fresh)
    # shellcheck disable=SC2086
    [ "$(count $new)" -eq "$batch" ] || refuse "Compose has not made $batch new replicas: $new"
    if [ -z "${ACCEPT_CHANGES:-}" ]; then
        changes=$(differences "${known%% *}" "${new%%
*}")
        [ -z "$changes" ] || refuse "the new replicas would not be as the old ones are:
$changes
put into .env what the old ones were given, or accept this with ACCEPT_CHANGES=1"
    fi
    # shellcheck disable=SC2086
    $docker start $new >/dev/null
    waited_s=0
    for container in $new; do
        wait_until "the new replica $container is not healthy" is_healthy "$container"
    done
    for container in $new; do
        wait_until "HAProxy does not send requests to the new replica $container" is_used "$container"
    done

    # As many old ones go, which may not be left half done; after the last new ones all go that are left.
    interrupted=""
    trap 'interrupted=130' INT
    trap 'interrupted=143' TERM HUP
    phase=stop
    started=$((started + batch))
    left=$old
    old=""
    for container in $left; do
        if [ "$batch" -eq 0 ] && [ "$started" -lt "$total" ]; then
            old="$old $container"
            continue
        fi
        tell "stopping $container"
        # shellcheck disable=SC2086
        { $apart $docker stop "$container" && $apart $docker rm "$container"; } >/dev/null ||
            refuse "the old replica $container could not be stopped and removed"
        [ "$batch" -eq 0 ] || batch=$((batch - 1))
    done
    phase=none
    heed_signals
    [ -z "$interrupted" ] || [ "$started" -eq "$total" ] || exit "$interrupted"
done
