# shellcheck shell=bash
# Sourced by worker.sh: which slice uses a workdir in a bucket. The trainer
# locks a workdir that is a folder, which a bucket does not allow. So worker 0
# writes a line into WORKDIR/logs/RUNNING while the run or its set-up goes on:
# RESOURCE, ATTEMPT and the seconds of the epoch. It holds for a quarter of an
# hour, in which it is written anew several times. launch/controller/claim.py
# reads it before a slice is made.
# shellcheck disable=SC2034,SC2154

claim_seconds=900

# Prints the resource that a claim on a workdir names, if it holds. What is
# malformed or of another day does not. It fails if it cannot find out, because
# another slice may be there then.
claimant() {
  local said line age status=0
  said="$(get_file "$1/logs/RUNNING" - "${file_seconds}" 2>&1)" || status=$?
  if ((status)) && [[ "${said}" != *"matched no objects"* ]]; then
    echo "${said}" >&2
    return "${status}"
  fi
  while read -r line; do
    if [[ "${line}" =~ ^(projects/[^\ ]+)\ [^\ ]+\ ([0-9]{1,12})$ ]]; then
      age=$(($(date +%s) - 10#${BASH_REMATCH[2]}))
      if ((-claim_seconds < age && age < claim_seconds)); then
        echo "${BASH_REMATCH[1]}"
        return
      fi
    fi
  done <<<"${said}"
}

# Whether two resources are one slice, which may be named by its request, too.
is_same() {
  [[ "${1/queuedResources/nodes}" == "${2/queuedResources/nodes}" ]]
}

# claim WORKDIR RESOURCE ATTEMPT: claims a workdir for this slice. If another
# one has it, it prints which and fails. If two slices find it free, one gets
# it: the bucket refuses the second line, as the first has come since the look.
claim() {
  local workdir="$1" resource="$2" attempt="$3" known other
  known="$(generation_of "${workdir}/logs/RUNNING")" || return
  other="$(claimant "${workdir}")" || return
  if [[ -n "${other}" ]] && ! is_same "${other}" "${resource}"; then
    echo "${other} runs there"
    return 1
  fi
  echo "${resource} ${attempt} $(date +%s)" | put_file \
    "${workdir}/logs/RUNNING" "${file_seconds}" "--if-generation-match=${known}"
}

# check_claim WORKDIR: claims it before a start, on worker 0. Prints
# `byol-taken HOST SENTENCE` if another slice has it, and what check_folders
# does if that cannot be found out.
check_claim() {
  local wanted="$1" text
  local workdir attempt logs delete deadline resource
  if [[ "${wanted}" != gs://* || "$(worker_number)" != 0 ]]; then return; fi
  read_tend
  if text="$(try_twice claim "${wanted}" "${resource}" "${attempt}")"; then
    return
  elif [[ "${text}" == *" runs there" ]]; then
    echo "byol-taken ${host} cannot use the workdir ${wanted}: ${text}"
  else
    say_folder "cannot claim the workdir ${wanted} by logs/RUNNING: ${text}"
  fi
}

# Claims the workdir of the run anew while it, or the set-up, goes on. It holds
# a lock, so that it does not come after a claim was given up. A run whose claim
# could not be written for so long that another slice has taken the workdir ends
# there, without a save: two runs would destroy each other's checkpoints.
keep_claim() {
  local text=""
  local workdir attempt logs delete deadline resource
  read_tend
  if [[ "${workdir}" != gs://* ]] || ! is_busy; then return; fi
  {
    flock 9
    if [[ ! -f "${run}/dropped" ]]; then
      text="$(try_twice claim "${workdir}" "${resource}" "${attempt}")" ||
        echo "The workdir was not claimed: ${text}"
    fi
  } 9>"${home}/claim.lock"
  if [[ "${text}" == *" runs there" ]] && unit_runs; then
    touch "${run}/taken" # see record
    echo "byol: Another slice has taken the workdir, so this run was ended" \
      "without a save: ${text}." >>"${run}/log"
    sudo systemctl kill --signal=KILL byol.service
  fi
}

# Gives up the claim of this slice until tending is told of another run. The end
# of a run does not wait for long for a bucket that hangs.
drop_claim() {
  local workdir attempt logs delete deadline resource other
  read_tend
  if [[ "${workdir}" != gs://* || "$(worker_number)" != 0 ]]; then return; fi
  touch "${run}/dropped"
  flock -w 20 "${home}/claim.lock" true || true
  other="$(claimant "${workdir}")" || return
  if [[ -n "${other}" ]] && is_same "${other}" "${resource}"; then
    remove_file "${workdir}/logs/RUNNING"
  fi
}
