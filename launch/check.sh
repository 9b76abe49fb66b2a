# shellcheck shell=bash
# Sourced by worker.sh: whether a run could go on this worker.
# shellcheck disable=SC2154

# libtpu gives the devices to one process. So this ends a trainer of ours that
# outlived its unit, and refuses to go on if another program holds them.
free_devices() {
  local pattern pid command
  local -a files=() pids=()
  for pattern in ${BYOL_DEVICES:-/dev/accel* /dev/vfio/*}; do
    if [[ -e "${pattern}" ]]; then files+=("${pattern}"); fi
  done
  if ((${#files[@]} == 0)); then return; fi
  mapfile -t pids < <(sudo lsof -t "${files[@]}" 2>/dev/null | sort -u)
  for pid in "${pids[@]}"; do
    command="$(ps -o args= -p "${pid}" || true)"
    case "${command}" in
      "") ;; # it has ended since
      *byol_flax.main*) sudo kill -KILL "${pid}" ;;
      *) die "Process ${pid} (${command}) holds the TPU; end it first." ;;
    esac
  done
  sudo rm -f /tmp/libtpu_lockfile
}

# Prints `byol-folder HOST SENTENCE` if this worker cannot write to the workdir,
# and the same if it cannot read the data. What lies in a bucket was tried by
# the controller; the rest only workers can see. Network storage may hang.
check_folders() {
  local workdir="$1" data="$2" text
  # shellcheck disable=SC2016
  if [[ "${workdir}" == /* ]] && ! text="$(timeout 60 bash -c \
    'mkdir -p "$1" && : >"$1/.check.$2" && rm "$1/.check.$2"' \
    bash "${workdir}" "${host}" 2>&1)"; then
    printf 'byol-folder %s cannot write to the workdir %s: %s\n' "${host}" \
      "${workdir}" "${text:-no answer within 60 s}"
  fi
  if [[ "${data}" == /* ]] &&
    ! text="$(timeout 60 ls -A "${data}" 2>&1 >/dev/null)"; then
    printf 'byol-folder %s cannot read the data in %s: %s\n' "${host}" \
      "${data}" "${text:-no answer within 60 s}"
  fi
}

# Prints what check_folders does, and `byol-check HOST ok DEVICES` if JAX sees
# the chips of this worker, else `byol-check HOST failed REASON`; on worker 0
# also `byol-may HOST ANSWER`: yes, no or unknown, whether its service account
# may delete the slice. All workers must be asked at once: those of one slice
# wait for each other at the start.
check() {
  local project="$1" workdir="$2" data="$3" text status=0 allowed
  check_folders "${workdir}" "${data}"
  free_devices
  text="$(timeout -k 10 "${BYOL_CHECK_SECONDS:-300}" "${venv}/bin/python" -c '
import os

import jax

devices = jax.local_devices()
if devices[0].platform == "cpu" and os.environ.get("JAX_PLATFORMS") != "cpu":
  raise SystemExit("JAX sees no TPU, only the processor.")
print(len(devices))
' 2>&1)" || status=$?
  text="$(tail -n 1 <<<"${text}")"
  case "${status}" in
    124) text="JAX did not start in time." ;;
    137) text="JAX was killed before it had started." ;;
    *) ;;
  esac
  if ((status)); then
    printf 'byol-check %s failed %s\n' "${host}" "${text:-without a word}"
  else
    printf 'byol-check %s ok %s\n' "${host}" "${text}"
  fi
  if [[ "$(worker_number || true)" != 0 ]]; then return; fi
  allowed=unknown
  if text="$(may_delete "${project}")"; then
    allowed=no
    if [[ "${text}" == *tpu.nodes.delete* ]]; then allowed=yes; fi
  fi
  printf 'byol-may %s %s\n' "${host}" "${allowed}"
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
