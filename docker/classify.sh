#!/usr/bin/env bash
# Copy each picture of a folder to CLASSIFIED/<label>-<score>.<ext>, in a container:
# docker/classify.sh TF_FILES TEST_DATA CLASSIFIED [OPTION...]
set -euo pipefail
# shellcheck source=docker/container.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/container.sh"

expect 3 "docker/classify.sh TF_FILES TEST_DATA CLASSIFIED [OPTION...]    (options of retrain classify)" "$@"
tf_files=$(folder "$1")
test_data=$(folder "$2")
offer_model "$tf_files"
offer "$test_data" readonly
case " ${*:4} " in
    *' --dry-run '*) classified=$(absolute "$3") ;; # which writes nothing
    *) classified=$(new_folder "$3") ;;
esac
[ ! -d "$classified" ] || offer "$classified"
in_container runtime classify --model "$model" "${@:4}" -- "$test_data" "$classified"
