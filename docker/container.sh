# shellcheck shell=bash
# Sourced by the scripts beside it: run retrain in a container as the caller, with the caller's umask, a read-only root, no
# network unless it serves, and nothing of the machine but the files and folders that were named. They have the same paths in the
# container as outside, so that messages and manifests are true on both sides. What can be set in the environment:
#
#   CONTAINER_ENGINE     docker or podman; else the first of them that is installed
#   RETRAIN_IMAGE        name of the images, whose tags are train, runtime and serve; else retrain
#   RETRAIN_NETWORK      network of the container, such as bridge for downloads; else none, or what the engine takes to serve
#   RETRAIN_CACHE_DIR    folder to keep downloaded and converted backbones in; else they are lost with the container

readonly USAGE=2 REFUSED=5 ENVIRONMENT=6 # exit codes, as retrain's own
usage=
mounts=(--tmpfs /tmp)
network=(--network "${RETRAIN_NETWORK:-none}")
variables=()
input=

fail() { # CODE MESSAGE
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    exit "$1"
}

expect() { # NUMBER ARGUMENT...: end with $usage where there are fewer, or an option comes first
    local number=$1
    shift
    case ${1:-} in -h | --help) printf '%s\n' "$usage" && exit 0 ;; esac
    if [ $# -lt "$number" ] || [ "${1#-}" != "$1" ]; then fail $USAGE "$usage"; fi
}

absolute() { # PATH
    local path=$1 folder
    [[ $path == /* ]] || path=./$path # `cd -` would lead elsewhere
    if [ -d "$path" ]; then
        (CDPATH='' cd -- "$path" && pwd -P)
        return
    fi
    folder=$(dirname -- "$path") # the last name may be a link, and stays one
    [ ! -d "$folder" ] || folder=$(absolute "$folder")
    [[ $folder == /* ]] || folder=$PWD/${folder#./}
    printf '%s/%s\n' "${folder%/}" "$(basename -- "$1")"
}

offer() { # ABSOLUTE-PATH [readonly [NAME]]: show it to the container, under its own name or another
    local needed name=${3:-$1} field
    for needed in /opt/retrain /usr/bin /usr/lib /usr/local /bin /lib /etc /dev /proc /sys /tmp; do
        [[ $needed/ != "${name%/}/"* ]] || fail $USAGE "$name would hide $needed in the container; name a folder further down"
    done
    [[ $name != *$'\n'* ]] || fail $USAGE "a path with a line break cannot be given to a container; rename it"
    field="type=bind,\"source=${1//\"/\"\"}\",\"target=${name//\"/\"\"}\"${2:+,$2}" # read as a line of CSV
    for needed in "${mounts[@]}"; do
        [ "$needed" != "$field" ] || return 0 # offered already
    done
    mounts+=(--mount "$field")
}

offer_classes() { # FOLDER of class folders: what it links to, and what class folders link to
    local folder=$1 link name
    if [ -L "$folder" ]; then
        follow "$folder"
        folder=$name
    fi
    for link in "$folder"/*; do
        if [ -L "$link" ] && [ -d "$link" ]; then follow "$link"; fi
    done
}

follow() { # LINK to a folder: offer that folder under the name that the link gives it; sets $name to that
    local leads beside=${1%/*}
    name=$1
    while :; do
        leads=$(readlink -- "$name")
        [[ $leads == /* ]] || leads=${name%/*}/$leads
        name=$leads
        # The container sees a further link beside this one; over that, nothing could be mounted.
        if [ ! -L "$name" ] || [ "${name%/*}" != "$beside" ]; then break; fi
    done
    offer "$(absolute "$1")" readonly "$name"
}

folder() { # PATH: absolute, of a folder that must be there
    [ -e "$1" ] || fail $USAGE "$1 does not exist; give a folder"
    [ -d "$1" ] || fail $USAGE "$1 is a file; give a folder"
    absolute "$1"
}

new_folder() { # PATH: absolute, of a folder that is made if need be; the engine would make it as root
    mkdir -p -- "$1" 2>/dev/null || fail $ENVIRONMENT "cannot make the folder $1; choose another, or fix permissions"
    absolute "$1"
}

offer_model() { # TF_FILES: sets $model
    model=$1/model
    [ -d "$model" ] || fail $REFUSED "no model in $1; run docker/train.sh first"
    offer "$model" readonly
}

not_model() { # OPTION...: the model is that of TF_FILES
    local option
    for option; do
        case $option in --model | --model=*) fail $USAGE "$option: the model is that of TF_FILES; give another TF_FILES" ;; esac
    done
}

find_engine() { # sets $engine and $about, what it says of itself
    local name
    engine=${CONTAINER_ENGINE:-}
    for name in docker podman; do
        [ -n "$engine" ] || ! command -v $name >/dev/null || engine=$name
    done
    [ -n "$engine" ] || fail $ENVIRONMENT "neither docker nor podman is installed; install one, or name yours in CONTAINER_ENGINE"
    command -v "$engine" >/dev/null || fail $ENVIRONMENT "CONTAINER_ENGINE: no command $engine; name docker, podman or the like"
    about=$("$engine" info 2>&1) ||
        fail $ENVIRONMENT "$engine does not run here: ${about##*$'\n'}; start it, or name another in CONTAINER_ENGINE"
}

caller() { # sets $user: what makes the container's files the caller's
    local group
    user=(--user "$(id -u):$(id -g)")
    if [[ $about == *'rootless: true'* ]]; then
        user+=(--userns keep-id) # podman without root
    elif [[ $about =~ $'\n'\ *rootless$'\n' ]]; then
        user=(--user 0:0) # docker without root: its root is the caller
    else
        for group in $(id -G); do user+=(--group-add "$group"); done
    fi
}

in_container() { # TAG ARGUMENT...: run retrain in the image of that tag; exits with its code
    local image=${RETRAIN_IMAGE:-retrain}:$1 engine about user
    shift
    find_engine
    "$engine" image inspect "$image" >/dev/null 2>&1 ||
        fail $ENVIRONMENT "$engine has no image $image; build it with: make images"
    caller
    local run=(run --rm --read-only "${network[@]}")
    # Where paths are labelled for SELinux, bind mounts could else not be read.
    run+=(--security-opt no-new-privileges --security-opt label=disable)
    if [ -t 0 ] && [ -t 1 ] && [ -t 2 ]; then run+=(--tty --interactive); elif [ "$input" ]; then run+=(--interactive); fi
    # The engines have no common option for the umask, so a shell sets it.
    # shellcheck disable=SC2016  # it is that shell that expands these
    exec "$engine" "${run[@]}" "${user[@]}" "${mounts[@]}" ${variables[@]+"${variables[@]}"} \
        --entrypoint dumb-init "$image" -- /bin/sh -c 'umask "$0" && exec retrain "$@"' "$(umask)" "$@"
}
