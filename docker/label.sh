#!/usr/bin/env bash
# Label pictures in a container: docker/label.sh TF_FILES IMAGE... [OPTION...]
# `-` as IMAGE reads a picture from standard input.
set -euo pipefail
# shellcheck source=docker/container.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/container.sh"

expect 2 "docker/label.sh TF_FILES IMAGE... [OPTION...]    (options of retrain label)" "$@"
tf_files=$(folder "$1")
offer_model "$tf_files"
shift
images=()
while [ $# -gt 0 ]; do
    case $1 in
        -) input=yes images+=(-) ;;
        -*) break ;;
        *)
            image=$(absolute "$1")
            [ ! -e "$image" ] || offer "$image" readonly # else retrain says that it is missing
            images+=("$image")
            ;;
    esac
    shift
done
in_container runtime label --model "$model" "$@" -- ${images[@]+"${images[@]}"}
