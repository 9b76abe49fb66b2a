# shellcheck shell=bash
# Sourced by worker.sh: what a worker does beside the run. It brings its log to
# the workdir, and worker 0 deletes the slice when nobody needs it any more, so
# that it costs nothing even if the controller is gone.
#
# All that it needs to know is in ${run}/tend, written by `start`: WORKDIR,
# ATTEMPT, DELETE, DEADLINE and RESOURCE, each ended by a NUL. DELETE is never,
# done or always; DEADLINE is in seconds of the epoch, or -; RESOURCE is the
# name of the slice in the TPU API, such as projects/P/locations/Z/nodes/N.
# shellcheck disable=SC2154

# Google's documentation of VM metadata and of the access tokens in it:
# cloud.google.com/compute/docs/access/authenticate-workloads.
metadata="http://metadata.google.internal/computeMetadata/v1/instance"
tend_seconds="${BYOL_TEND_SECONDS:-60}"
# A live controller looks once a minute, and deletes the slice itself.
grace_seconds="${BYOL_GRACE_SECONDS:-600}"

# Prints one value of this machine's metadata.
read_metadata() {
  curl -sS -f -m 10 -H "Metadata-Flavor: Google" "${metadata}/$1"
}

# Prints a token of the service account of this machine.
access_token() {
  read_metadata service-accounts/default/token |
    sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p'
}

# Prints the number of this worker; JAX reads the same attribute. Without an
# answer it is the end of the name, such as t1v-n-0123abcd-w-3.
worker_number() {
  if [[ ! -s "${home}/number" ]]; then
    read_metadata attributes/agent-worker-number >"${home}/number" ||
      printf '%s' "${host##*-w-}" >"${home}/number"
  fi
  cat "${home}/number"
}

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

# Sets what `start` was told about the workdir and the payment.
read_tend() {
  local -a words
  mapfile -d '' -t words <"${run}/tend"
  logs="${words[0]%/}/logs/${words[1]}" delete="${words[2]}"
  deadline="${words[3]}" resource="${words[4]}"
}

# Brings the log of this attempt to the workdir. That also shows the controller
# that this machine is alive when ssh does not reach it.
keep_log() {
  local logs delete deadline resource number
  read_tend
  number="$(worker_number)"
  if [[ -f "${run}/log" ]]; then
    put_file "${logs}/worker-${number:-${host}}.log" <"${run}/log"
  fi
}

# Asks the TPU API to delete this slice, for which tpu.nodes.delete is needed
# (REST reference v2, projects.locations.nodes.delete, queuedResources.delete).
delete_slice() {
  local resource="$1" token
  token="$(access_token)"
  if [[ "${resource}" == */queuedResources/* ]]; then
    resource+="?force=true"
  fi
  # The token does not go through the command line, which all processes see.
  curl -sS -f -m 60 -X DELETE -H @- \
    "https://tpu.googleapis.com/v2/${resource}" \
    <<<"Authorization: Bearer ${token}"
}

# Prints why the slice shall be deleted now: done, ended or hours; nothing while
# it is needed.
why_delete() {
  local delete="$1" deadline="$2" now ended
  now="$(date +%s)"
  if [[ "${deadline}" != - ]] && ((now >= deadline)); then
    echo hours
  elif [[ "${delete}" != never && -f "${run}/exit" ]] && ! unit_runs; then
    ended="$(stat -c %Y "${run}/exit")"
    if ((now - ended < grace_seconds)); then return; fi
    if [[ ! -f "${run}/stopped" && "$(<"${run}/exit")" == 0 ]]; then
      echo "done"
    elif [[ "${delete}" == always ]]; then
      echo ended
    fi
  fi
}

# The main process of the unit byol-tend, which outlives the run and a reboot.
tend() {
  local round=0 why logs delete deadline resource
  exec >>"${run}/tend.log" 2>&1
  read_tend
  if [[ "$(worker_number || true)" == 0 ]]; then
    # Beside the loop, because it takes minutes, and after the run in all that
    # the machine has to give. It ends with this unit.
    nice -n 19 timeout 1800 bash "${script}" pack ||
      echo "The packages were not kept." &
  fi
  while true; do
    if ((round % 3 == 0)); then keep_log || echo "The log was not kept."; fi
    round=$((round + 1))
    if [[ "$(worker_number || true)" == 0 ]]; then
      why="$(why_delete "${delete}" "${deadline}")"
      if [[ -n "${why}" ]]; then
        echo "$(date -u +%FT%TZ): ${why}"
        end_run
        keep_log || echo "The log was not kept."
        if [[ "${delete}" != never ]]; then
          echo "${why}" | put_file "${logs}/deleted.txt" || true
          delete_slice "${resource}" || echo "The slice could not be deleted."
        fi
      fi
    fi
    sleep "${tend_seconds}"
  done
}

# Makes tending begin anew, with what ${run}/tend says now. The unit is a file,
# because a transient one would be gone after a reboot.
start_tending() {
  cat >"${home}/byol-tend.service" <<UNIT
[Unit]
Description=Log and payment of the BYOL run
Wants=network-online.target
After=network-online.target

[Service]
User=$(id -un)
Environment=BYOL_HOME=${home} HOME=${HOME}
ExecStart=/bin/bash ${script} tend
Restart=always
RestartSec=60

[Install]
WantedBy=multi-user.target
UNIT
  sudo systemctl enable --quiet "${home}/byol-tend.service"
  sudo systemctl daemon-reload
  sudo systemctl restart byol-tend.service
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
  text="$(timeout "${BYOL_CHECK_SECONDS:-300}" "${venv}/bin/python" -c '
import os

import jax

devices = jax.local_devices()
if devices[0].platform == "cpu" and os.environ.get("JAX_PLATFORMS") != "cpu":
  raise SystemExit("JAX sees no TPU, only the processor.")
print(len(devices))
' 2>&1)" || status=$?
  text="$(tail -n 1 <<<"${text}")"
  if ((status == 124)); then text="JAX did not start in time."; fi
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
