# shellcheck shell=bash
# Sourced by worker.sh: the files of the workdir, in a bucket or in a folder.
#
# Network storage that hangs blocks every process that touches it, so each of
# these touches it in processes of its own, which `timeout` ends.
# shellcheck disable=SC2154

file_seconds="${BYOL_FILE_SECONDS:-60}"

# put_file FILE [SECONDS [FLAG]]: writes stdin to a file of the workdir, which
# appears there whole. FLAG is for a bucket. If it fails, the file is as it was
# before.
put_file() {
  local target="$1" seconds="${2:-${file_seconds}}"
  if [[ "${target}" == gs://* ]]; then
    # The image has gcloud, and a pipe needs no file.
    timeout -k 5 "${seconds}" gcloud storage cp --quiet "${@:3}" - \
      "${target}"
  else
    # Each step is joined to the next, because `set -e` has no effect where
    # put_file is called in a condition.
    # shellcheck disable=SC2016
    timeout -k 5 "${seconds}" bash -c 'mkdir -p "${1%/*}" && cat >"$2" &&
      mv "$2" "$1" || { rm -f "$2"; exit 1; }' \
      bash "${target}" "${target}.part.${host}"
  fi
}

# get_file FILE TARGET [SECONDS]: copies a file of the workdir to this machine,
# or to stdout if the target is -.
get_file() {
  local source="$1" target="$2" seconds="${3:-900}"
  if [[ "${source}" == gs://* ]]; then
    timeout -k 5 "${seconds}" gcloud storage cp --quiet "${source}" "${target}"
  elif [[ "${target}" == - ]]; then
    timeout -k 5 "${file_seconds}" cat "${source}"
  else
    timeout -k 5 "${seconds}" cp "${source}" "${target}"
  fi
}

# Whether the workdir has a file.
has_file() {
  if [[ "$1" == gs://* ]]; then
    timeout -k 5 "${file_seconds}" gcloud storage ls "$1" >/dev/null 2>&1
  else
    timeout -k 5 "${file_seconds}" test -f "$1"
  fi
}

# Prints the number by which a bucket knows what a file holds now, or 0 if there
# is no file. A copy with --if-generation-match=N fails unless that is still N.
generation_of() {
  local said status=0
  said="$(timeout -k 5 "${file_seconds}" gcloud storage objects describe "$1" \
    "--format=value(generation)" 2>&1)" || status=$?
  case "${status} ${said}" in
    "0 "*) grep -xE "[0-9]+" <<<"${said}" ;;
    *"not found"*) echo 0 ;;
    *)
      echo "${said}" >&2
      return "${status}"
      ;;
  esac
}

# Removes a file of the workdir.
remove_file() {
  if [[ "$1" == gs://* ]]; then
    timeout -k 5 "${file_seconds}" gcloud storage rm --quiet "$1"
  else
    timeout -k 5 "${file_seconds}" rm -f "$1"
  fi
}
