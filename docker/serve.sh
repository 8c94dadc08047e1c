#!/usr/bin/env bash
# Offer a model as a web page and a REST service, in a container: docker/serve.sh TF_FILES [OPTION...]
# --host and --port are those of this machine; in the container it is always port 8000, where the image looks for it.
set -euo pipefail
# shellcheck source=docker/container.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/container.sh"

usage="usage: docker/serve.sh TF_FILES [OPTION...]    (options of retrain serve)"
expect 1 "$@"
tf_files=$(folder "$1")
shift
not_model "$@"

host=127.0.0.1 port=8000 named='' pictures=''
options=()
while [ $# -gt 0 ]; do
    name=${1%%=*}
    case $name in
        --host | --port)
            if [ "$name" != "$1" ]; then
                value=${1#*=}
            else
                [ $# -gt 1 ] || fail $USAGE "$name needs a value; $usage"
                value=$2
                shift
            fi
            if [ "$name" = --host ]; then host=$value; else port=$value; fi
            ;;
        *)
            case $name in
                --allow-host) named=yes ;;
                --training-pictures) pictures=yes ;;
                --no-training-pictures) pictures=no ;;
            esac
            options+=("$1")
            ;;
    esac
    shift
done
if [[ ! $port =~ ^[1-9][0-9]{0,4}$ ]] || [ "$port" -gt 65535 ]; then
    fail $USAGE "--port $port is out of range; it goes from 1 to 65535"
fi
[[ $host =~ ^[0-9A-Fa-f.:]+$|^localhost$ ]] || fail $USAGE "--host $host is no address of this machine, such as 127.0.0.1 or 0.0.0.0"
case $host in
    127.0.0.1 | ::1 | localhost) [ "$pictures" ] || options+=(--training-pictures) ;;
    *) [ "$named" ] || fail $USAGE "--host $host opens the server to other machines; say by which name they reach it: --allow-host NAME" ;;
esac
[ "$host" != localhost ] || host=127.0.0.1 # the engines take addresses only

offer_model "$tf_files"
case " ${options[*]-} " in
    *' --training-pictures '*)
        # Small copies of training pictures: where they lie is written in the reports. The page does without what is not there.
        if [ -d "$tf_files/reports" ]; then offer "$tf_files/reports" readonly; fi
        if [ -d "$tf_files/data" ]; then
            [ -L "$tf_files/data" ] || offer "$tf_files/data" readonly
            offer_classes "$tf_files/data"
        fi
        ;;
esac

# From within, whoever comes through the published port comes from another machine.
inside=(--host 0.0.0.0 --port 8000 --allow-host localhost)
at=$host
[[ $host != *:* ]] || at="[$host]"
if [ "${RETRAIN_NETWORK:-}" = host ]; then # nothing is published there
    inside=(--host "$host" --port "$port")
else
    network=(${RETRAIN_NETWORK:+--network "$RETRAIN_NETWORK"} --publish "$at:$port:8000")
    printf '%s: on this machine it is http://%s:%s/\n' "${0##*/}" "${at/#0.0.0.0/127.0.0.1}" "$port" >&2
fi
network+=(--stop-timeout 15) # for what is under way
in_container serve serve --model "$model" "${inside[@]}" ${options[@]+"${options[@]}"}
