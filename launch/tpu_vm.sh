#!/usr/bin/env bash
# Keeps a pre-training run going on a Cloud TPU slice until it is done.
#
#   launch/tpu_vm.sh [COMMAND] CONFIG[:ARG] [OPTION ...]
#     [--config.key=value ...]
#
# Commands:
#   run          (default) makes or adopts the slice, starts the run or attaches
#                to it, and resumes it after every preemption
#   up           makes the slice and installs everything, starts nothing
#   status       tells how the slice is, and the run on every worker
#   logs         prints the last lines of every worker's log
#   tensorboard  serves the metrics at http://localhost:6006 while it runs
#   stop         ends the run after a save; the slice stays, and is paid for
#   delete       deletes the slice; what is in the workdir stays
#
# CONFIG is a file of configs/, such as byol_r200x2 or byol_r50x1:epochs=100.
#
# Options:
#   --workdir=DIR   gs://... or an absolute path that all workers share (run,
#                   tensorboard)
#   --data=DIR      where the prepared data sets are (--config.loader.data_dir)
#   --slice=TYPE    such as v3-512 or v4-32     (default: launch/slices.tsv)
#   --zone=ZONE     such as europe-west4-a      (default: launch/slices.tsv)
#   --project=ID    (default: the one that gcloud is set to)
#   --name=NAME     of the slice; if it exists it is adopted (default: the
#                   config's name)
#   --spot          cheap, but may be preempted at any time (default)
#   --on-demand     expensive, but is not preempted
#   --queued        waits in Google's queue; with --spot or --on-demand
#   --commit=HASH   runs that commit (default: HEAD, with nothing uncommitted)
#   --delete-when-done  deletes the slice when the run is done
#   --dry-run       prints every command instead of running it
#
# A value may also follow its option after a space.
#
# Environment, with defaults:
#   BYOL_POLL_SECONDS=60   between two looks at the run
#   BYOL_RETRY_SECONDS=60  before something is tried again
#   BYOL_MAX_TRIES=5       of one gcloud command or set-up step
#   BYOL_MAX_RESTARTS=3    after faults of the run; preemptions do not count
#   BYOL_STRAGGLER_SECONDS=600  for the last workers to end
#   BYOL_LOG_LINES=20      of every worker
#
# Exit status: 0 done; 1 gave up; 2 wrong usage or config; 75 stopped by `stop`;
# 130 and 143 interrupted, and the run goes on.
set -euo pipefail

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
program="${0}"

# die STATUS WORD...: prints one sentence and ends.
die() {
  printf 'tpu_vm.sh: %s\n' "${*:2}" >&2
  exit "$1"
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) ||
  die 2 "bash 4.4 or newer is needed; this is ${BASH_VERSION}."

# shellcheck source=launch/outcome.sh
source "${repository}/launch/outcome.sh"
# shellcheck source=launch/settings.sh
source "${repository}/launch/settings.sh"
# shellcheck source=launch/gcloud.sh
source "${repository}/launch/gcloud.sh"
# shellcheck source=launch/control.sh
source "${repository}/launch/control.sh"

# The settings; the files above read and set them.
# shellcheck disable=SC2034
{
  poll_seconds="${BYOL_POLL_SECONDS:-60}"
  retry_seconds="${BYOL_RETRY_SECONDS:-60}"
  max_tries="${BYOL_MAX_TRIES:-5}"
  max_restarts="${BYOL_MAX_RESTARTS:-3}"
  straggler_seconds="${BYOL_STRAGGLER_SECONDS:-600}"
  log_lines="${BYOL_LOG_LINES:-20}"
  queued=0 spot=1 dry_run=0 delete_when_done=0
  command=run config="" argument="" workdir="" data="" slice="" zone=""
  project="" name="" commit=""
  overrides=()
  # What is known about the slice and the run.
  state="" seen="" found_slice="" status="" event="" codes=()
  started_id="" started_commit="" child="" scratch=""
  # What a --dry-run pretends to have found.
  dry_state=ABSENT dry_status=absent
}

# --- commands -----------------------------------------------------------------

interrupted() {
  trap '' INT TERM
  if [[ -n "${child}" ]]; then kill "${child}" 2>/dev/null || true; fi
  if [[ "${command}" == run || "${command}" == up ]]; then
    say "Interrupted. What was started goes on, and the slice is paid for."
    if [[ "${command}" == run ]]; then
      say "  to watch it again: $(own_command run)"
    fi
    say "  to stop the run:   $(own_command stop)"
    say "  to stop paying:    $(own_command delete)"
  fi
  exit "$1"
}

show_output() {
  if ((!dry_run)); then cat "${scratch}/out"; fi
}

command_up() {
  pack_code
  ensure_slice
  if ! ship_code || ! on_all_workers_for_sure setup; then
    die 1 "${name} could not be set up; it is still paid for. To delete it:" \
      "$(own_command delete)"
  fi
  say "${name} is ready; to delete it: $(own_command delete)"
}

command_status() {
  read_slice
  printf '%s: %s\n' "${name}" "${seen}"
  if [[ "${state}" == ready ]]; then
    on_workers all state || die 1 "The workers do not answer: $(last_error)"
    show_output | sort
  elif [[ "${state}" == unknown ]]; then
    die 1 "gcloud cannot say how ${name} is: $(last_error)"
  fi
}

command_logs() {
  on_workers all logs "${log_lines}" ||
    die 1 "The workers do not answer: $(last_error)"
  show_output
}

command_stop() {
  say "Ending the run on ${name} after a save; this takes up to five minutes."
  on_workers all stop || die 1 "The workers do not answer: $(last_error)"
  say "Stopped. ${name} is still paid for; to delete it:" \
    "$(own_command delete)"
}

command_delete() {
  if ((!queued)); then
    # If it was made through a queue, the queue would hold on to it.
    read_queue_state
    if [[ "${state}" != ABSENT && "${state}" != UNKNOWN ]]; then queued=1; fi
  fi
  delete_slice || exit 1
}

# Runs TensorBoard on worker 0, which can read the workdir. It listens on that
# machine's localhost, and ssh carries it to ours. With -t it ends with the ssh.
command_tensorboard() {
  local line word
  local -a words
  line="bash byol/current/launch/worker.sh tensorboard"
  for word in "${workdir%/}/tensorboard" 6006; do
    line+=" $(printf '%q' "${word}")"
  done
  words=(gcloud compute tpus tpu-vm ssh "${name}" "--project=${project}"
    "--zone=${zone}" --quiet --worker=0 "--command=${line}"
    -- -t -L 6006:localhost:6006)
  if ((dry_run)); then
    quoted "${words[@]}"
  else
    say "Open http://localhost:6006; Ctrl-C ends it."
    "${words[@]}"
  fi
}

parse_arguments "$@"
command -v gcloud >/dev/null ||
  die 2 "gcloud is not installed; see https://cloud.google.com/sdk."
scratch="$(mktemp -d)"
trap 'rm -rf "${scratch}"' EXIT
fill_in
if [[ "${command}" != tensorboard ]]; then
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM
fi
case "${command}" in
  run) control ;;
  *) "command_${command}" ;;
esac
