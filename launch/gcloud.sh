# shellcheck shell=bash
# Sourced by tpu_vm.sh: one function for each thing that Google Cloud is asked.
# Uses the settings of tpu_vm.sh.
# shellcheck disable=SC2034,SC2154

# Tells the user something on stderr, because stdout has what was asked for.
say() {
  if ((dry_run)); then return; fi
  printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2
}

# Prints a command so that it can be pasted into a shell.
quoted() {
  local word line=""
  for word in "$@"; do
    # Words such as --zone=Z stay readable: only the value is quoted.
    if [[ "${word}" =~ ^(--[A-Za-z_.-]+=)(.+)$ ]]; then
      line+="${BASH_REMATCH[1]}"
      word="${BASH_REMATCH[2]}"
    fi
    if [[ "${word}" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      line+="${word} "
    else
      line+="'${word//\'/\'\\\'\'}' "
    fi
  done
  printf '%s\n' "${line% }"
}

# Runs a command, or prints it under --dry-run. Its output lands in
# ${scratch}/out and ${scratch}/err. It runs in the background and is waited
# for, because bash runs no trap while a command is in the foreground; stdin is
# closed, because ssh would swallow it.
attempt() {
  if ((dry_run)); then
    quoted "$@"
    return
  fi
  "$@" >"${scratch}/out" 2>"${scratch}/err" </dev/null &
  child=$!
  local status=0
  wait "${child}" || status=$?
  child=""
  return "${status}"
}

# Prints what gcloud said from ERROR on, which may be several lines, or else all
# but its warnings. Those speak of quotas and permissions too.
error_text() {
  if grep -q '^ERROR' "${scratch}/err"; then
    sed -n '/^ERROR/,$p' "${scratch}/err"
  else
    grep -v '^WARNING' "${scratch}/err" || true
  fi
}

last_error() {
  error_text | tail -n 4 | tr '\n' ' '
}

error_matches() {
  local text
  text="$(error_text)"
  grep -Eqi "$1" <<<"${text}"
}

tpu_vm() {
  attempt gcloud compute tpus tpu-vm "$1" "${name}" \
    "--project=${project}" "--zone=${zone}" "${@:2}"
}

queued_resource() {
  attempt gcloud compute tpus queued-resources "$1" "${name}" \
    "--project=${project}" "--zone=${zone}" "${@:2}"
}

# The states of nodes, then those of queued resources.
states="CREATING|READY|RESTARTING|REIMAGING|DELETING|REPAIRING|STOPPED|STOPPING"
states+="|STARTING|PREEMPTED|TERMINATED|HIDING|HIDDEN|UNHIDING"
states+="|ACCEPTED|WAITING_FOR_RESOURCES|PROVISIONING|ACTIVE|FAILED|SUSPENDING"
states+="|SUSPENDED"

# Sets `state` from the output of a describe. It is the last line that has
# nothing but a state and perhaps an accelerator type, which `found_slice` gets;
# gcloud also prints warnings and update notices, not always on stderr. `state`
# is ABSENT when the thing does not exist, UNKNOWN when gcloud could not tell.
read_state() {
  local status="$1" line pattern
  state=UNKNOWN
  pattern="^(${states})([[:space:]]+([a-z0-9]+-[0-9]+))?[[:space:]]*\$"
  if ((status == 0)); then
    while IFS= read -r line; do
      if [[ "${line}" =~ ${pattern} ]]; then
        state="${BASH_REMATCH[1]}"
        found_slice="${BASH_REMATCH[3]}"
      fi
    done <"${scratch}/out"
  elif error_matches 'NOT_FOUND|was not found'; then
    state=ABSENT
  fi
}

read_node_state() {
  local status=0
  tpu_vm describe '--format=value(state,acceleratorType)' || status=$?
  if ((dry_run)); then
    state="${dry_state}"
    found_slice="${slice}"
    return
  fi
  read_state "${status}"
}

read_queue_state() {
  local status=0
  queued_resource describe '--format=value(state.state)' || status=$?
  if ((dry_run)); then
    if [[ "${dry_state}" == READY ]]; then state=ACTIVE; else state=ABSENT; fi
    return
  fi
  read_state "${status}"
}

# Sets `state` to what it means for us: ready, waiting, absent, dead (delete and
# create again), held (somebody stopped it) or unknown. `seen` is Google's word.
read_slice() {
  if ((queued)); then
    read_queue_state
    seen="${state}"
    case "${state}" in
      ACTIVE) ;; # the node tells the rest
      ABSENT) state=absent ;;
      UNKNOWN) state=unknown ;;
      FAILED | SUSPENDED | SUSPENDING) state=dead ;;
      *) state=waiting ;;
    esac
    if [[ "${state}" != ACTIVE ]]; then return; fi
  fi
  read_node_state
  seen="${state}"
  case "${state}" in
    READY) state=ready ;;
    ABSENT)
      # An active queue without its node has lost it.
      if ((queued)); then state=dead; else state=absent; fi
      ;;
    UNKNOWN) state=unknown ;;
    STOPPED | STOPPING | HIDING | HIDDEN) state=held ;;
    CREATING | STARTING | RESTARTING | REPAIRING | REIMAGING) state=waiting ;;
    DELETING | UNHIDING) state=waiting ;;
    *) state=dead ;; # PREEMPTED, TERMINATED, FAILED
  esac
}

runtime_version() {
  case "${slice}" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) return 1 ;;
  esac
}

create_slice() {
  local version
  version="$(runtime_version)"
  local -a spot_flag=()
  if ((spot)); then spot_flag=(--spot); fi
  # --accelerator-type is always given, because gcloud's default is a v2-8. A
  # queue gets --async: it may take days, and we poll it ourselves.
  if ((queued)); then
    queued_resource create "--node-id=${name}" \
      "--accelerator-type=${slice}" "--runtime-version=${version}" \
      "${spot_flag[@]}" --async --quiet
  else
    tpu_vm create "--accelerator-type=${slice}" "--version=${version}" \
      "${spot_flag[@]}" --quiet
  fi
}

# Prints the command that deletes by hand, for messages.
delete_command() {
  if ((queued)); then
    quoted gcloud compute tpus queued-resources delete "${name}" \
      "--project=${project}" "--zone=${zone}" --force --quiet
  else
    quoted gcloud compute tpus tpu-vm delete "${name}" \
      "--project=${project}" "--zone=${zone}" --quiet
  fi
}

# Deletes and looks whether it is gone; returns 1 if it stayed.
delete_slice() {
  local try
  for ((try = 1; try <= max_tries; try++)); do
    say "Deleting ${name}."
    if ((queued)); then
      queued_resource delete --force --quiet || say "Refused: $(last_error)"
    else
      tpu_vm delete --quiet || say "Refused: $(last_error)"
    fi
    if ((dry_run)); then return; fi
    read_slice
    if [[ "${state}" == absent ]]; then
      say "${name} is deleted; it costs nothing any more."
      return
    fi
    pause "${retry_seconds}"
  done
  say "${name} could not be deleted and is still paid for. By hand:"
  delete_command >&2
  return 1
}

# Runs worker.sh with a verb and its arguments on one worker or on all.
on_workers() {
  local which="$1" line word
  shift
  line="bash byol/current/launch/worker.sh"
  # %q quotes for the worker's shell, which joins the words and splits the line
  # again; attempt's own words need no quotes.
  for word in "$@"; do line+=" $(printf '%q' "${word}")"; done
  tpu_vm ssh --quiet "--worker=${which}" "--command=${line}"
}

# Does the same on all workers, until it works or was tried often enough: ssh to
# new machines fails now and then.
on_all_workers_for_sure() {
  local try
  for ((try = 1; try <= max_tries; try++)); do
    if on_workers all "$@"; then return; fi
    say "$1 failed on a worker (try ${try} of ${max_tries}):"
    tail -n 40 "${scratch}/err" >&2
    if ((try < max_tries)); then pause "${retry_seconds}"; fi
  done
  return 1
}
