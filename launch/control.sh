# shellcheck shell=bash
# Sourced by tpu_vm.sh: the loop that keeps a run going until it is done.
# Uses the settings of tpu_vm.sh and the functions of gcloud.sh.
# shellcheck disable=SC2034,SC2154

# Sleeps so that Ctrl-C and TERM are answered at once.
pause() {
  if ((dry_run)); then return; fi
  sleep "$1" &
  child=$!
  wait "${child}" || true
  child=""
}

# --- a slice that is ready ----------------------------------------------------

# Tries once to create the slice. Returns 0 when it may come up, 1 when there
# was no capacity; exits if waiting cannot help.
try_to_create() {
  say "Creating ${name}: ${slice} in ${zone}, ${kind}."
  if create_slice; then
    dry_state=READY
    return 0
  fi
  if error_matches 'ALREADY_EXISTS|already exists'; then
    return 0
  elif error_matches 'quota limit|quota.*exceeded|insufficient quota'; then
    die 1 "Google Cloud refuses ${slice} in ${zone} for want of quota:" \
      "$(last_error)"
  elif error_matches 'no more capacity|RESOURCE_EXHAUSTED|UNAVAILABLE'; then
    say "No capacity for ${slice} in ${zone}; next try in ${retry_seconds} s."
    return 1
  fi
  ((++failed_creations < max_tries)) ||
    die 1 "Google Cloud does not create ${name}: $(last_error)"
  say "Not created: $(last_error)"
  return 1
}

# Creates or adopts the slice and waits until it is ready.
ensure_slice() {
  local before="" unknown=0
  failed_creations=0
  while true; do
    read_slice
    if [[ "${seen}" != "${before}" ]]; then say "${name} is ${seen}."; fi
    before="${seen}"
    case "${state}" in
      ready)
        if [[ -n "${found_slice}" && "${found_slice}" != "${slice}" ]]; then
          die 2 "${name} is a ${found_slice}, not a ${slice}; give" \
            "--slice=${found_slice}, or another --name."
        fi
        return
        ;;
      absent) try_to_create || pause "${retry_seconds}" ;;
      dead) delete_slice || exit 1 ;;
      held)
        die 1 "${name} is ${seen}, which somebody did by hand; start or" \
          "delete it first."
        ;;
      unknown)
        ((++unknown < max_tries)) ||
          die 1 "gcloud cannot say how ${name} is: $(last_error)"
        say "gcloud cannot say how ${name} is: $(last_error)"
        pause "${retry_seconds}"
        ;;
      *) pause "${poll_seconds}" ;;
    esac
  done
}

# --- code, packages, start ----------------------------------------------------

# Makes the tarball of the commit, with its hash in a file COMMIT at the top.
pack_code() {
  local cache="${XDG_CACHE_HOME:-${HOME}/.cache}/byol-launch/${commit}"
  tarball="${cache}/byol-${commit}.tar.gz"
  if ((!dry_run)); then
    mkdir -p "${cache}"
    printf '%s' "${commit}" >"${cache}/COMMIT"
  else
    quoted mkdir -p "${cache}"
    printf 'printf %%s %s >%q\n' "${commit}" "${cache}/COMMIT"
  fi
  attempt git -C "${repository}" archive "--add-file=${cache}/COMMIT" \
    "--output=${tarball}" "${commit}" ||
    die 1 "git archive failed: $(last_error)"
}

# Copies and unpacks it on every worker, where `current` points at it.
ship_code() {
  local try unpack folder="byol/code-${commit}"
  unpack="mkdir -p ${folder} && tar -xzf byol-${commit}.tar.gz -C ${folder}"
  unpack+=" && ln -sfn code-${commit} byol/current"
  say "Sending commit ${commit} to all workers."
  for ((try = 1; try <= max_tries; try++)); do
    if attempt gcloud compute tpus tpu-vm scp "${tarball}" "${name}:" \
      "--project=${project}" "--zone=${zone}" --quiet --worker=all &&
      tpu_vm ssh --quiet --worker=all "--command=${unpack}"; then
      return
    fi
    say "That failed (try ${try} of ${max_tries}): $(last_error)"
    if ((try < max_tries)); then pause "${retry_seconds}"; fi
  done
  return 1
}

start_run() {
  ship_code && say "Setting up all workers." &&
    on_all_workers_for_sure setup &&
    say "Starting the run." &&
    on_all_workers_for_sure start "${run_id}" "${trainer_arguments[@]}"
}

# --- watching -----------------------------------------------------------------

# Asks all workers; sets `status` to running, mixed, exited, stopped, absent or
# unreachable, `codes` to the exit codes, `started_id` and `started_commit`.
read_run() {
  local _ word code id hash running=0 ended=0 absent=0 stopped=0
  codes=()
  started_id=""
  if ! on_workers all state; then
    # A worker without our code has no run either.
    if grep -q 'worker.sh: No such file' "${scratch}/err"; then
      status=absent
    else
      status=unreachable
    fi
    return
  fi
  if ((dry_run)); then
    status="${dry_status}"
    dry_status=exited
    codes=(0)
    return
  fi
  while read -r _ _ word code id hash; do
    case "${word}" in
      running) running=$((running + 1)) ;;
      absent) absent=$((absent + 1)) ;;
      lost) ended=$((ended + 1)) codes+=(lost) ;;
      *) ended=$((ended + 1)) codes+=("${code}") ;;
    esac
    if [[ "${word}" == stopped ]]; then stopped=1; fi
    if [[ "${word}" != absent ]]; then
      started_id="${id}" started_commit="${hash}"
    fi
  done < <(grep '^byol-state ' "${scratch}/out" || true)
  # A worker that knows of no run, beside others that do, was replaced.
  if ((ended + running)); then
    for ((; absent; absent--)); do ended=$((ended + 1)) codes+=(lost); done
  fi
  if ((running && !ended)); then
    status=running
  elif ((running)); then
    status=mixed
  elif ((stopped)); then
    status=stopped
  elif ((ended)); then
    status=exited
  elif ((absent)); then
    status=absent
  else
    status=unreachable
  fi
}

# Watches until the run or the slice has ended; sets `event` to an exit code,
# or to lost, deleted, held or stopped.
watch_run() {
  local mixed_since=0 before=""
  while true; do
    read_slice
    case "${state}" in
      ready) ;;
      dead) event=lost ;;
      absent) event=deleted ;;
      held) event=held ;;
      unknown)
        # The run does not depend on us, so keep asking. Perhaps a token ran
        # out, which a login in another terminal mends.
        say "gcloud cannot say how ${name} is: $(last_error)"
        ;;
      *) say "${name} is ${seen}." ;;
    esac
    if [[ -n "${event}" ]]; then return; fi
    if [[ "${state}" == ready ]]; then
      read_run
      if [[ "${status}" != "${before}" ]]; then say "The run is ${status}."; fi
      before="${status}"
      case "${status}" in
        exited) event="$(outcome_of "${codes[@]}")" ;;
        stopped) event=stopped ;;
        absent) event=75 ;; # a worker that was replaced has no run
        mixed)
          # Some have ended and some have not. That is usual for a moment; if
          # it lasts, they hang.
          if ((!mixed_since)); then mixed_since=$((SECONDS + 1)); fi
          if ((SECONDS - mixed_since >= straggler_seconds)); then
            say "Some workers ended, others hang; ending all."
            on_workers all halt || true
          fi
          ;;
        unreachable) say "A worker did not answer: $(last_error)" ;;
        *) mixed_since=0 ;;
      esac
      if [[ -n "${event}" ]]; then return; fi
    fi
    pause "${poll_seconds}"
  done
}

show_logs() {
  say "The last ${log_lines} lines of every worker:"
  on_workers all logs "${log_lines}" || say "No logs: $(last_error)"
  if ((!dry_run)); then cat "${scratch}/out" >&2; fi
}

# --- the loop -----------------------------------------------------------------

finish() {
  say "Done. Results: ${workdir}"
  if ((delete_when_done)); then
    delete_slice || exit 1
  else
    say "${name} is still paid for; to delete it:"
    say "  $(own_command delete)"
  fi
}

# Adopts a run that goes on already, or that is done; returns 1 when one must
# be started.
adopt_run() {
  read_run
  case "${status}" in
    running | mixed) ;;
    exited) [[ "$(outcome_of "${codes[@]}")" == 0 ]] || return 1 ;;
    *) return 1 ;;
  esac
  if [[ "${started_id}" != "${run_id}" ]]; then
    if [[ "${status}" == exited ]]; then return 1; fi
    die 2 "${name} runs something else; stop it first" \
      "($(own_command stop)), or give another --name."
  fi
  if [[ "${status}" == mixed ]]; then
    # A start was interrupted, or the run is falling apart.
    say "Only some workers run; ending them after a save to start all."
    on_workers all halt || true
    return 1
  fi
  say "Watching the run that was started from commit ${started_commit}."
}

control() {
  local restarts=0
  pack_code
  while true; do
    ensure_slice
    event=""
    if ! adopt_run && ! start_run; then
      # If it was preempted meanwhile, the next round creates it anew.
      read_slice
      if [[ "${state}" == ready ]]; then
        say "The workers could not be made to run it. ${name} is still paid" \
          "for; to delete it: $(own_command delete)"
        exit 1
      fi
      continue
    fi
    watch_run
    case "${event}" in
      0)
        finish
        return
        ;;
      2)
        show_logs
        die 2 "The config is wrong, see the lines above. ${name} is still" \
          "paid for; to delete it: $(own_command delete)"
        ;;
      75) say "The run was preempted after a save; resuming." ;;
      lost) say "${name} is ${seen}; making it anew. The run will resume." ;;
      deleted)
        die 1 "${name} was deleted by somebody else, so it is not made anew;" \
          "the same command resumes the run."
        ;;
      held)
        die 1 "${name} is ${seen}, which somebody did by hand; the same" \
          "command resumes the run when it is started or deleted."
        ;;
      stopped)
        die 75 "The run was stopped by \`stop\`; the same command resumes it." \
          "${name} is still paid for; to delete it: $(own_command delete)"
        ;;
      *)
        show_logs
        restarts=$((restarts + 1))
        if ((restarts > max_restarts)); then
          die 1 "The run ended with ${event}, after ${max_restarts} restarts." \
            "${name} is still paid for; to delete it: $(own_command delete)"
        fi
        say "The run ended with ${event}; restart ${restarts} of" \
          "${max_restarts}."
        ;;
    esac
    if [[ "${event}" != lost ]]; then pause "${retry_seconds}"; fi
  done
}
