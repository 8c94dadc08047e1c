#!/usr/bin/env bash
# Train in a container, as `retrain train TF_FILES` does outside: docker/train.sh TF_FILES [OPTION...]
set -euo pipefail
# shellcheck source=docker/container.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/container.sh"

expect 1 "docker/train.sh TF_FILES [OPTION...]    (options of retrain train)" "$@"
tf_files=$(folder "$1")
shift
offer "$tf_files"
# The pictures are only read. They, or single classes, may be links to elsewhere.
for pictures in "$tf_files/data" "$tf_files/data"/* "$tf_files"/*; do
    if [ "$pictures" = "$tf_files/data" ] || [ -L "$pictures" ]; then
        [ ! -d "$pictures" ] || offer "$(absolute "$pictures")" readonly
    fi
done

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
            elif [ $# -gt 1 ]; then
                value=$2
                shift
            fi
            if [ "$name" = --model ] && [ "$value" ]; then
                value=$(new_folder "$value")
                offer "$value"
            elif [ -e "$value" ]; then
                value=$(absolute "$value")
                offer "$value" readonly
            fi
            options+=("$name${value:+=$value}")
            ;;
        *) options+=("$1") ;;
    esac
    shift
done

in_container train train "$tf_files" ${options[@]+"${options[@]}"}
