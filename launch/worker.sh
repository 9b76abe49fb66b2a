#!/usr/bin/env bash
# Everything that happens on one worker of a slice. The controller calls it over
# ssh, from the code that it has shipped:
#
#   bash launch/worker.sh VERB ...
#
#   setup WORKDIR DELETE SECONDS RESOURCE
#                    brings Python and the packages, see packages.sh; WORKDIR is
#                    - for none, for the rest see start
#   disk [DIR]       mounts the disk of --data-disk, see data_disk.sh
#   check PROJECT WORKDIR DATA
#                    tells whether JAX sees the chips and the folders can be
#                    used, see check.sh; DATA is - for none
#   start ID ATTEMPT DELETE SECONDS RESOURCE ARG...
#                    starts `byol train ARG...` so that a lost ssh harms
#                    nothing; for the rest see tending.sh; SECONDS are left
#                    before the deadline, or -
#   state            prints one line, see print_state
#   logs N           prints the last N lines of this worker's log
#   stop             ends the run after a save, and no controller resumes it,
#                    also when it comes before the start
#   halt             ends the run after a save; the controller decides
#   train ARG...     runs the trainer in the foreground (launch/local.sh)
#   tensorboard DIR PORT  serves DIR on this machine's localhost only
#   newest DIR       prints the newest checkpoint of that workdir
#   goodput          prints where the time of the run went
#   retend DELETE SECONDS  changes what start was told of the payment
#   install, exec, record, tend, pack  are parts of setup and start
#
# Environment: BYOL_HOME (default ~/byol) holds code, packages and the files of
# the run; BYOL_PYTHON is the interpreter of `train`; BYOL_DEVICES are the
# device files of the TPU, a pattern per word.
set -euo pipefail

# The folder of this commit, also when it was called through `current`: a run
# keeps the commit that it was started from.
code="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
script="${code}/launch/worker.sh"
home="${BYOL_HOME:-${HOME}/byol}"
run="${home}/run"
venv="${home}/venv"
host="$(hostname)"

die() {
  printf '%s: %s\n' "${host}" "$1" >&2
  exit 1
}

# shellcheck source=launch/check.sh
source "${code}/launch/check.sh"
# shellcheck source=launch/claim.sh
source "${code}/launch/claim.sh"
# shellcheck source=launch/data_disk.sh
source "${code}/launch/data_disk.sh"
# shellcheck source=launch/files.sh
source "${code}/launch/files.sh"
# shellcheck source=launch/packages.sh
source "${code}/launch/packages.sh"
# shellcheck source=launch/tending.sh
source "${code}/launch/tending.sh"

# Prints the lines of stdin, each after the name of this worker, because gcloud
# mixes the output of all workers. (Its --output-directory would not, but in SDK
# 528 it writes to a folder named None.)
name_lines() {
  local line
  while IFS= read -r line || [[ -n "${line}" ]]; do
    printf '%s: %s\n' "${host}" "${line}"
  done
}

# --- the run ------------------------------------------------------------------

# Whether the run goes on, also while it saves after a SIGTERM.
unit_runs() {
  local state
  state="$(systemctl show --property=ActiveState --value byol.service)"
  [[ "${state}" != inactive && "${state}" != failed && -n "${state}" ]]
}

# Prints `byol-state HOST STATUS CODE ID COMMIT ATTEMPT SECONDS`, "-" for what
# is not known; SECONDS are left before the deadline.
# STATUS: running; exited, by itself or by halt; stopped, by stop, perhaps
# before there was a run; lost, when the machine went down without a record;
# absent, when nothing was started.
print_state() {
  local status=absent exit_code=- id=- commit=- attempt=- left=-
  local workdir logs delete deadline resource
  if [[ -f "${run}/id" ]]; then
    status=lost
    read -r id commit <"${run}/id"
    read_tend
    if [[ "${deadline}" != - ]]; then left=$((deadline - $(date +%s))); fi
  fi
  if unit_runs; then
    status=running
  elif [[ -f "${run}/exit" ]]; then
    status=exited
    exit_code="$(<"${run}/exit")"
  fi
  if [[ -f "${run}/stopped" && "${status}" != running ]]; then
    status=stopped
  fi
  # One short write, which the pipe that all workers share does not tear.
  printf 'byol-state %s %s %s %s %s %s %s\n' "${host}" "${status}" \
    "${exit_code}" "${id}" "${commit}" "${attempt}" "${left}"
}

start() {
  local id="$1" attempt="$2" delete="$3" left="$4" resource="$5"
  local argument workdir="" held
  shift 5
  for argument in "$@"; do
    if [[ "${argument}" == --workdir=* ]]; then workdir="${argument#*=}"; fi
  done
  mkdir -p "${run}"
  if unit_runs; then
    # A repeated start, after an ssh that failed on some worker, is no mistake.
    if [[ "$(cut -d ' ' -f 1 "${run}/id" 2>/dev/null)" == "${id}" ]]; then
      return
    fi
    die "Another run is going on here; stop it first."
  fi
  # A stop since the check of this attempt is for it; an older one has been
  # answered by whoever starts the run again.
  if [[ "${run}/stopped" -nt "${run}/used" ]]; then return; fi
  if [[ "${workdir}" == /* ]]; then
    remove_file "${workdir}/${token}" || echo "${token} stays." >&2
  fi
  held="$(free_devices)" || die "${held}"
  # An ended unit keeps its name until it is reset.
  sudo systemctl reset-failed byol.service 2>/dev/null || true
  # The log is that of one attempt; those before are in the workdir.
  rm -f "${run}/exit" "${run}/stopped" "${run}/taken" "${run}/log" \
    "${run}/preparing"
  write_tend "${workdir}" "${attempt}" "${delete}" "${left}" "${resource}"
  # systemd expands $ and % in a unit's command line, so the trainer's arguments
  # travel in a file. `mv` makes them appear whole.
  printf '%s\0' "$@" >"${run}/arguments.part"
  mv "${run}/arguments.part" "${run}/arguments"
  printf '%s %s\n' "${id}" "$(cat "${code}/COMMIT" || echo -)" >"${run}/id"
  # There is no Restart=, because only the controller sees all workers. With
  # KillMode=mixed SIGTERM goes to the trainer alone, which saves and ends its
  # input workers itself; it has 290 s, because maintenance grants five minutes.
  # ExecStopPost writes the status into a file, because one kept by the unit
  # would be gone after a reboot or reset-failed. With After= a machine that
  # shuts down keeps its network until the run has saved. LimitMEMLOCK is for
  # newer TPUs (VFIO), which pin the memory that they read. With OOMPolicy=stop
  # the unit also ends, as oom-kill, when an input worker was killed for memory.
  sudo systemd-run --quiet --unit=byol --uid="$(id -un)" \
    --working-directory="${code}" --setenv=BYOL_HOME="${home}" \
    --property=KillMode=mixed --property=TimeoutStopSec=290 \
    --property=LimitNOFILE=65536 --property=LimitMEMLOCK=infinity \
    --property=Wants=network-online.target \
    --property="After=network-online.target nss-lookup.target" \
    --property=OOMPolicy=stop \
    --property=ExecStopPost="/bin/bash \"${script}\" record" \
    /bin/bash "${script}" exec
  start_tending
}

# The main process of the unit. Every step `exec`s, so that systemd's SIGTERM
# reaches Python itself: a shell in between would not pass it on.
exec_trainer() {
  local -a arguments
  mapfile -d '' -t arguments <"${run}/arguments"
  exec >>"${run}/log" 2>&1
  printf '=== %s, commit %s\n' "$(date -u +%FT%TZ)" \
    "$(cut -d ' ' -f 2 "${run}/id")"
  BYOL_PYTHON="${venv}/bin/python" train "${arguments[@]}"
}

train() {
  local argument workdir=""
  for argument in "$@"; do
    case "${argument}" in
      --workdir=*) workdir="${argument#--workdir=}" ;;
      *) ;;
    esac
  done
  # Not by changing the folder: launch/local.sh is given paths that begin where
  # its user stands, where there may also be modules of other things.
  export PYTHONPATH="${code}${PYTHONPATH:+:${PYTHONPATH}}" PYTHONSAFEPATH=1
  # The cache is in the workdir, because a new slice has empty disks and the
  # largest encoder takes minutes to compile.
  local cache="${workdir%/}/compilation_cache"
  export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${cache}}"
  export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
  export PYTHONUNBUFFERED=1
  exec "${BYOL_PYTHON:-${venv}/bin/python}" -m byol_flax.main train "$@"
}

# systemd calls this when the unit has ended. It writes the exit code as a shell
# would report it, from 0 to 255.
record() {
  local status="${EXIT_STATUS:-255}"
  if [[ "${EXIT_CODE:-}" != exited ]]; then
    # The name of a signal, such as KILL.
    status="$((128 + $(kill -l "${status}" || echo 127)))"
  fi
  # The trainer may have saved and ended with 75 when the kernel killed one of
  # its input workers for memory; that is no preemption (systemd.exec(5)).
  if [[ "${SERVICE_RESULT:-}" == oom-kill ]]; then status=137; fi
  if [[ -f "${run}/taken" ]]; then status=2; fi # it must not be resumed
  # First, because the controller may delete this machine once there is a code.
  keep_log || echo "The log was not kept." >>"${run}/log"
  file_seconds=10 # a machine that is preempted has half a minute
  drop_claim || echo "logs/RUNNING of the workdir stays." >>"${run}/log"
  printf '%s' "${status}" >"${run}/exit.part"
  mv "${run}/exit.part" "${run}/exit"
}

end_run() {
  if unit_runs; then
    # Returns when the trainer has saved and ended, or after TimeoutStopSec. A
    # process that even SIGKILL does not end, as on storage that hangs, would
    # make it wait for four times as long.
    sudo timeout 600 systemctl stop byol.service
  fi
}

# Prints `byol-newest HOST STEP` of a workdir that only the workers can read; -1
# if there is no checkpoint. A local one gets its name when it is complete.
newest() {
  local path step best=-1
  for path in "$1"/checkpoints/*/; do
    step="$(basename "${path}")"
    if [[ "${step}" =~ ^[0-9]+$ ]] && ((step > best)); then best="${step}"; fi
  done
  printf 'byol-newest %s %s\n' "${host}" "${best}"
}

# Prints where the time of the run went, see `byol goodput`.
goodput() {
  local -a words
  if [[ ! -f "${run}/id" ]]; then die "No run was started here."; fi
  mapfile -d '' -t words <"${run}/tend"
  cd "${code}"
  exec "${venv}/bin/python" -m byol_flax.main goodput --workdir="${words[0]}"
}

tensorboard() {
  local logdir="$1" port="$2"
  exec "${venv}/bin/python" -m tensorboard.main --logdir="${logdir}" \
    --host=127.0.0.1 --port="${port}"
}

verb="${1:-}"
if (($# > 0)); then shift; fi
case "${verb}" in
  disk | check) touch "${run}/used" ;; # the controller prepares a run
  *) ;;
esac
case "${verb}" in
  setup | install | disk | check | start | record | newest | goodput | tend | \
    retend | pack | tensorboard | train)
    "${verb}" "$@"
    ;;
  exec) exec_trainer ;;
  state) print_state ;;
  logs)
    if [[ -f "${run}/log" ]]; then
      tail -n "$1" "${run}/log" | name_lines
    else
      echo "no log yet" | name_lines
    fi
    ;;
  stop)
    mkdir -p "${run}"
    touch "${run}/stopped"
    if unit_runs; then
      end_run
    elif [[ -f "${run}/tend" ]]; then
      drop_claim || true # of a set-up or a check
    fi
    ;;
  halt) end_run ;;
  *) die "worker.sh does not know the verb ${verb:-(none)}." ;;
esac
