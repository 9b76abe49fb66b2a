# shellcheck shell=bash
# Sourced by worker.sh: the files of the workdir, in a bucket or in a folder.
# shellcheck disable=SC2154

# put_file FILE [SECONDS]: writes stdin to a file of the workdir, which appears
# there whole.
put_file() {
  local target="$1" seconds="${2:-60}"
  if [[ "${target}" == gs://* ]]; then
    # The image has gcloud, and a pipe needs no file.
    timeout "${seconds}" gcloud storage cp --quiet - "${target}"
  else
    mkdir -p "${target%/*}"
    timeout "${seconds}" cat >"${target}.part.${host}"
    mv "${target}.part.${host}" "${target}"
  fi
}

# get_file FILE TARGET: copies a file of the workdir to this machine, or to
# stdout if the target is -.
get_file() {
  local source="$1" target="$2"
  if [[ "${source}" == gs://* ]]; then
    timeout 900 gcloud storage cp --quiet "${source}" "${target}"
  elif [[ "${target}" == - ]]; then
    cat "${source}"
  else
    timeout 900 cp "${source}" "${target}"
  fi
}

# Removes a file of the workdir.
remove_file() {
  if [[ "$1" == gs://* ]]; then
    timeout 60 gcloud storage rm --quiet "$1"
  else
    rm -f "$1"
  fi
}
