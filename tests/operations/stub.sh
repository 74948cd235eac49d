#!/bin/sh
# Stands in for `docker`, `docker compose`, `curl` and `sleep`, by whose names it is called, as far as rolling-update.sh uses them.
# $STATE is a folder: `containers/` has a file for each replica, with its settings, one a line; `settings` those that new ones get;
# `options` what Compose was given before its command; `slots/` one for each of HAProxy's $PLACES that is taken, with its
# replica and state; `log` what was done. HAProxy looks for replicas whenever it is asked: one that it has found is up at the next look,
# and one that has gone keeps its place for three more.
set -eu
cd "$STATE"

uses() {
    [ -f "containers/$1" ] && grep -qs UP "slots/$1"
}

used() {
    n=0
    for container in $(ls containers); do
        if uses "$container"; then n=$((n + 1)); fi
    done
    echo "$n"
}

free() {
    echo $((PLACES - $(ls slots | wc -l)))
}

look() {
    for slot in $(ls slots); do
        if [ -f "containers/$slot" ]; then
            echo UP >"slots/$slot"
        elif [ "$(cat "slots/$slot")" = "GONE.." ]; then
            rm "slots/$slot"
        elif grep -q GONE "slots/$slot"; then
            echo "$(cat "slots/$slot")." >"slots/$slot"
        else
            echo GONE >"slots/$slot"
        fi
    done
    for container in $(ls containers); do
        [ -f "slots/$container" ] || [ "$(free)" -eq 0 ] || echo DOWN >"slots/$container"
    done
}

page() {
    echo '# pxname,svname,status,check_desc,addr,'
    for backend in http:8000 grpc:8001; do
        proxy=${backend%:*}_replicas
        for slot in $(ls slots); do
            state=$(cat "slots/$slot")
            case $state in GONE*) state=DOWN ;; esac
            echo "$proxy,replica,$state,\"Layer7 check, passed\",10.0.0.${slot#c}:${backend#*:},"
        done
        for _ in $(seq "$(free)"); do
            echo "$proxy,replica,MAINT (resolution),,,"
        done
        echo "$proxy,BACKEND,UP,,,"
    done
}

create() {
    next=$(($(cat next) + 1))
    echo $next >next
    cat settings >"containers/c$next"
    echo "create c$next" >>log
}

up() {
    for scale in "$@"; do
        case $scale in convoy=*) wanted=${scale#convoy=} ;; esac
    done
    while [ "$(ls containers | wc -l)" -lt "$wanted" ]; do
        if [ -f up-fails ] && [ "$(ls containers | wc -l)" -eq $((wanted - 1)) ]; then
            echo "no memory for another container" >&2
            exit 1
        fi
        create
    done
}

compose() {
    options=""
    while [ "${1#--}" != "$1" ]; do
        options="$options$1 $2 "
        shift 2
    done
    echo "$options" >options
    case $1 in
    ps) ls containers ;;
    port) echo 127.0.0.1:8404 ;;
    config) printf 'networks:\n  convoy: {}\nservices:\n  convoy:\n    image: convoy:next\n  other:\n    image: other\n' ;;
    up) up "$@" ;;
    *) unknown compose "$@" ;;
    esac
}

unknown() {
    echo "the stub does not know $*" >&2
    exit 2
}

case "${0##*/} ${1:-}" in
sleep*)
    if [ -f interrupt ]; then kill -TERM "$PPID"; fi
    ;;
curl*)
    [ ! -f haproxy-is-away ] || exit 7
    look
    page
    ;;
"docker ps") ls containers ;;
"docker inspect")
    case "$3 $4" in
    *project*) echo convoy ;;
    *" image-of-"*) printf '"PATH=/bin"\ncommand=["serve"]\n' ;;
    *Env*)
        echo '"PATH=/bin"'
        sed -n 's/^[A-Z].*/"&"/p' "containers/$4"
        grep '^command=' "containers/$4" || echo 'command=["serve"]'
        ;;
    *Running*) if grep -q stopped "containers/$4"; then echo false; else echo true; fi ;;
    *StartedAt*) if [ -f never-healthy ]; then echo "starting 2026-01-01T00:00:00Z"; else echo "healthy 2026-01-01T00:00:00Z"; fi ;;
    *Output*) echo "the model m is missing" ;;
    *Health*) if [ -f never-healthy ]; then echo starting; else echo healthy; fi ;;
    *IPAddress*) echo "10.0.0.${4#c} " ;;
    *"{.Image}"*) echo "image-of-$4" ;;
    *Mounts*) grep '^/' "containers/$4" || true ;;
    *Networks*) ;;
    *Host*) ;;
    *) unknown "$@" ;;
    esac
    ;;
"docker info") echo DAEMON:1 ;;
"docker logs") echo "loading failed" ;;
"docker image") [ ! -f unknown-image ] ;;
"docker pull")
    [ ! -f nowhere ]
    echo "pull $2" >>log
    ;;
"docker start")
    shift
    for container in "$@"; do
        echo "start $container" >>log
    done
    ;;
"docker stop")
    shift
    for container in "$@"; do
        if [ -f interrupt-stop ]; then
            # As Ctrl-C in a terminal, which goes to the programs of one session.
            [ "$(cut -d ' ' -f 6 /proc/$$/stat)" -eq "$$" ] || exit 1
            kill -TERM "$PPID"
        fi
        [ ! -f "cannot-stop-$container" ] || exit 1
        rm "containers/$container"
        echo "stop $container leaves $(used)" >>log
    done
    ;;
"docker rm") ;;
compose*) compose "$@" ;;
*) unknown "$0" "$@" ;;
esac
