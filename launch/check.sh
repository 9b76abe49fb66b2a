# shellcheck shell=bash
# Sourced by worker.sh: whether a run could go on this worker.
# shellcheck disable=SC2154

# libtpu gives the devices to one process. So this ends a trainer of ours that
# outlived its unit, and a check whose ssh was lost. If another program holds
# them, it prints which and fails.
free_devices() {
  local pattern pid command
  local -a files=() pids=()
  for pattern in ${BYOL_DEVICES:-/dev/accel* /dev/vfio/*}; do
    if [[ -e "${pattern}" ]]; then files+=("${pattern}"); fi
  done
  if ((${#files[@]} == 0)); then return; fi
  mapfile -t pids < <(sudo lsof -t "${files[@]}" 2>/dev/null | sort -u)
  for pid in "${pids[@]}"; do
    command="$(ps -o args= -p "${pid}" | tr '\n' ' ' || true)"
    case "${command}" in
      "") ;; # it has ended since
      *byol_flax.main* | *byol-check*)
        # Another controller may have started a run meanwhile.
        if ! unit_runs; then sudo kill -KILL "${pid}" || true; fi
        ;;
      *)
        echo "Process ${pid} (${command% }) holds the TPU; end it first."
        return 1
        ;;
    esac
  done
  sudo rm -f /tmp/libtpu_lockfile
}

# Prints the disk or the server that holds a folder.
source_of() {
  timeout 60 df --output=source "$1" | tail -n 1
}

# Whether a folder is in the memory or on the boot disk of this machine.
is_own() {
  local source root own
  source="$(source_of "$1")"
  root="$(source_of /)"
  own="$(source_of "${HOME}")"
  case "${source}" in
    "${root}" | "${own}" | tmpfs) return 0 ;;
    *) return 1 ;;
  esac
}

# say_folder SENTENCE: prints a line for the controller about a folder.
say_folder() {
  printf 'byol-folder %s %s\n' "${host}" "${1//$'\n'/ }"
}

# Prints `byol-folder HOST SENTENCE` if this worker cannot write to the workdir,
# or if that would go with the slice, and the same if it cannot read the data.
# For what lies in a bucket see check_buckets. Network storage may hang.
check_folders() {
  local workdir="$1" data="$2" text
  # shellcheck disable=SC2016
  if [[ "${workdir}" == /* ]]; then
    if ! text="$(timeout 60 bash -c \
      'mkdir -p "$1" && : >"$1/.check.$2" && rm "$1/.check.$2"' \
      bash "${workdir}" "${host}" 2>&1)"; then
      text="${text:-no answer within 60 s}"
      say_folder "cannot write to the workdir ${workdir}: ${text}"
    elif is_own "${workdir}"; then
      text="which are deleted with the slice"
      say_folder "has ${workdir} in its own memory or on its own disk, ${text}"
    fi
  fi
  if [[ "${data}" == /* ]] &&
    ! text="$(timeout 60 ls -A "${data}" 2>&1 >/dev/null)"; then
    text="${text:-no answer within 60 s}"
    say_folder "cannot read the data in ${data}: ${text}"
  fi
}

# Tries what a run does in its buckets, with the account of this machine, which
# is another than that of the controller. Prints what check_folders does.
check_buckets() {
  local workdir="$1" data="$2" text
  if [[ "${workdir}" == gs://* ]] &&
    ! text="$(try_twice write_object "${workdir}/.check.${host}")"; then
    say_folder "cannot write to the workdir ${workdir}: ${text}"
  fi
  if [[ "${data}" == gs://* ]] &&
    ! text="$(try_twice read_object "${data}")"; then
    say_folder "cannot read the data in ${data}: ${text}"
  fi
}

# try_twice COMMAND...: fails if the command fails twice, because a network may
# fail once. Then it prints why, by the last line of what the command said.
try_twice() {
  local said status=0
  said="$("$@" 2>&1)" ||
    { sleep 2 && said="$("$@" 2>&1)"; } || status=$?
  case "${status}" in
    0) return ;;
    124 | 137) echo "no answer within ${file_seconds} s" ;;
    # What a copy says of its progress may come after the error.
    *) { grep ERROR <<<"${said}" || echo "${said}"; } | tail -n 1 ;;
  esac
  return 1
}

write_object() {
  echo "${host}" | put_file "$1" && remove_file "$1"
}

# Lists a folder of a bucket until there is an object, and reads its first byte.
# An object that stands for a folder ends in a slash.
read_object() {
  local listing name status=0
  # There may be millions, of which a few are enough.
  listing="$({ timeout -k 5 "${file_seconds}" gcloud storage ls "$1/**" ||
    echo "status $?"; } | head -n 100 || true)"
  while IFS= read -r name; do
    case "${name}" in
      "status "*) status="${name#status }" ;;
      *[][*?#]*) ;; # gcloud takes such a name for a pattern
      gs://*[!/:])
        timeout -k 5 "${file_seconds}" gcloud storage cat --range=0-0 "${name}"
        return
        ;;
      *) ;;
    esac
  done <<<"${listing}"
  return "${status}"
}

# Worker 0 leaves this file in a workdir that is a folder, and the others look
# for it; start takes it away.
token=.check.worker-0

# Prints `byol-folder HOST SENTENCE` if this worker does not see the file of
# worker 0, so that each would have a workdir of its own. It is called when JAX
# has started, for which all workers have waited for each other. To look for it
# sooner could make network storage remember that it is not there.
check_sharing() {
  # shellcheck disable=SC2016
  timeout -k 5 "${file_seconds}" bash -c \
    'until [[ -e "$1" ]]; do sleep 1; done' bash "$1/${token}" ||
    say_folder "does not see what worker 0 has written to $1"
}

# Prints what check_folders, check_buckets and check_claim do, and how the TPU
# of this worker is:
#
#   byol-check HOST ok DEVICES     JAX sees its chips
#   byol-check HOST failed REASON  JAX does not
#   byol-check HOST held REASON    another program or a run holds them
#
# On worker 0 also `byol-may HOST ANSWER`: yes, no or unknown, whether its
# service account may delete the slice. All workers must be asked at once: those
# of one slice wait for each other at the start.
check() {
  local project="$1" workdir="$2" data="$3" said number folders said_of_buckets
  number="$(worker_number || true)"
  folders="$(check_folders "${workdir}" "${data}")"
  if [[ -n "${folders}" ]]; then
    printf '%s\n' "${folders}"
  elif [[ "${number}" == 0 && "${workdir}" == /* ]]; then
    : | put_file "${workdir}/${token}" ||
      say_folder "cannot write to the workdir ${workdir}: no answer"
  fi
  # Of this check alone: one whose ssh was lost may still go on.
  said_of_buckets="${run}/buckets.$$"
  # Beside JAX, because a network that does not answer takes its time.
  {
    check_claim "${workdir}"
    check_buckets "${workdir}" "${data}"
  } >"${said_of_buckets}" &
  said="$(check_chips)"
  wait "$!"
  cat "${said_of_buckets}"
  rm "${said_of_buckets}"
  printf 'byol-check %s %s\n' "${host}" "${said}"
  if [[ "${number}" == 0 ]]; then
    printf 'byol-may %s %s\n' "${host}" "$(ask_permission "${project}")"
  elif [[ "${said}" == ok* && "${workdir}" == /* && -z "${folders}" ]]; then
    check_sharing "${workdir}"
  fi
}

# Prints the words of `byol-check` after the host.
check_chips() {
  local text status=0 running="held A run that goes on already holds the TPU."
  # Another controller may have started it; nothing shall disturb it.
  if unit_runs; then
    echo "${running}"
    return
  fi
  if ! text="$(free_devices)"; then
    echo "held ${text}"
    return
  fi
  # The last word tells free_devices what this is.
  text="$(timeout -k 10 "${BYOL_CHECK_SECONDS:-300}" "${venv}/bin/python" -c '
import os

import jax

devices = jax.local_devices()
if devices[0].platform == "cpu" and os.environ.get("JAX_PLATFORMS") != "cpu":
  raise SystemExit("JAX sees no TPU, only the processor.")
print(len(devices))
' byol-check 2>&1)" || status=$?
  text="$(tail -n 1 <<<"${text}")"
  case "${status}" in
    0)
      echo "ok ${text}"
      return
      ;;
    124) text="JAX did not start in time." ;;
    137) text="JAX was killed before it had started." ;;
    *) ;;
  esac
  if unit_runs; then
    echo "${running}" # it has begun meanwhile
  else
    echo "failed ${text:-without a word}"
  fi
}

# Prints yes, no or unknown.
ask_permission() {
  local text
  if ! text="$(may_delete "$1")"; then
    echo unknown
  elif [[ "${text}" == *tpu.nodes.delete* ]]; then
    echo yes
  else
    echo no
  fi
}

# Asks with the worker's own account (REST reference of the Resource Manager v1,
# projects.testIamPermissions, which needs no permission itself).
may_delete() {
  local token url="https://cloudresourcemanager.googleapis.com/v1/projects/$1"
  token="$(access_token)"
  curl -sS -f -m 20 -X POST -H @- -H "Content-Type: application/json" \
    -d '{"permissions": ["tpu.nodes.delete"]}' "${url}:testIamPermissions" \
    <<<"Authorization: Bearer ${token}"
}
