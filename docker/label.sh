#!/usr/bin/env bash
# Label pictures in a container: docker/label.sh TF_FILES IMAGE... [OPTION...]
# `-` as IMAGE reads a picture from standard input.
set -euo pipefail
# shellcheck source=docker/container.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/container.sh"

usage="usage: docker/label.sh TF_FILES IMAGE... [OPTION...]    (options of retrain label)"
expect 2 "$@"
tf_files=$(folder "$1")
offer_model "$tf_files"
shift
images=() input=
while [ $# -gt 0 ]; do
    case $1 in
        -) input=yes images+=(-) ;;
        --) ;;
        -*) break ;;
        *)
            image=$(absolute "$1")
            [ ! -f "$image" ] || offer "$image" readonly # else retrain says what is wrong with it
            images+=("$image")
            ;;
    esac
    shift
done
[ ${#images[@]} -gt 0 ] || fail $USAGE "no picture before the options; $usage"
not_model "$@"
[ -z "$input" ] || : <&0 2>/dev/null || exec </dev/null # closed; the engine would wait for it
in_container runtime label --model "$model" "$@" -- "${images[@]}"
