#!/usr/bin/env bash
# Copy each picture of a folder to CLASSIFIED/<label>-<score>.<ext>, in a container:
# docker/classify.sh TF_FILES TEST_DATA CLASSIFIED [OPTION...]
set -euo pipefail
# shellcheck source=docker/container.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/container.sh"

usage="usage: docker/classify.sh TF_FILES TEST_DATA CLASSIFIED [OPTION...]    (options of retrain classify)"
expect 3 "$@"
tf_files=$(folder "$1")
test_data=$(folder "$2")
offer_model "$tf_files"
offer "$test_data" readonly
not_model "${@:4}"
case " ${*:4} " in
    *' --dry-run '*) classified=$(absolute "$3") ;; # which writes nothing
    *) classified=$(new_folder "$3") ;;
esac
case $classified in
    "$test_data" | "$model") fail $USAGE "$classified cannot be both read and written; give another folder for the copies" ;;
esac
[ ! -d "$classified" ] || offer "$classified"
in_container runtime classify --model "$model" "${@:4}" -- "$test_data" "$classified"
