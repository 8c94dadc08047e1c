#!/usr/bin/env bash
# Train in a container, as `retrain train TF_FILES` does outside: docker/train.sh TF_FILES [OPTION...]
set -euo pipefail
# shellcheck source=docker/container.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/container.sh"

usage="usage: docker/train.sh TF_FILES [OPTION...]    (options of retrain train)"
expect 1 "$@"
tf_files=$(folder "$1")
shift
for ours in model reports bottlenecks.sqlite; do
    [ ! -L "$tf_files/$ours" ] || fail $USAGE "$tf_files/$ours is a link, which leads nowhere in the container; put it there itself"
done
offer "$tf_files"
if [ -d "$tf_files/data" ]; then
    [ -L "$tf_files/data" ] || offer "$tf_files/data" readonly # pictures are only read
    offer_classes "$tf_files/data"
else
    offer_classes "$tf_files"
fi

if [ "${RETRAIN_CACHE_DIR:-}" ]; then
    cache=$(new_folder "$RETRAIN_CACHE_DIR")
    offer "$cache"
    variables=(--env "RETRAIN_CACHE_DIR=$cache")
fi

# Options whose value is a path: the container gets to see it, under its absolute name.
options=()
while [ $# -gt 0 ]; do
    name=${1%%=*} value=
    case $name in
        --model | --test-dir | --validation-dir | --weights | --backbone)
            if [ "$name" != "$1" ]; then
                value=${1#*=}
            elif [ $# -gt 1 ] && [ "${2#--}" = "$2" ]; then
                value=$2
                shift
            fi
            case $name:$value in
                *:) ;; # retrain says that it is missing
                --model:*) value=$(new_folder "$value") && offer "$value" ;;
                --backbone:*/* | --backbone:*.tar.gz | --backbone:*.tgz | --weights:*)
                    [ ! -e "$value" ] || { value=$(absolute "$value") && offer "$value" readonly; }
                    ;;
                --*-dir:*)
                    value=$(folder "$value")
                    offer "$value" readonly
                    offer_classes "$value"
                    ;;
            esac
            options+=("$name${value:+=$value}")
            ;;
        *) options+=("$1") ;;
    esac
    shift
done

in_container train train "$tf_files" ${options[@]+"${options[@]}"}
