# shellcheck shell=bash
# Sourced by worker.sh: what a worker does beside the run. It brings its log to
# the workdir, and worker 0 deletes the slice when nobody needs it any more, so
# that it costs nothing even if the controller is gone. Should worker 0 hang,
# worker 1 does it later. That begins with the set-up, before there is a run.
#
# All that it needs to know is in ${run}/tend: WORKDIR, ATTEMPT, DELETE,
# DEADLINE and RESOURCE, each ended by a NUL. ATTEMPT is set-up before the first
# start. DELETE is never, done or always, or hours, with which the slice is
# deleted at the deadline only. DEADLINE is in seconds of the epoch, or -.
# RESOURCE is the name of the slice in the TPU API, such as
# projects/P/locations/Z/nodes/N.
#
# ${run}/used is touched while a run or a set-up goes on, and when the
# controller prepares a run. A slice that is idle for the grace has nobody who
# looks after it.
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

# write_tend WORKDIR ATTEMPT DELETE SECONDS RESOURCE; SECONDS are left before
# the deadline, or -.
write_tend() {
  local seconds="$4" deadline=-
  if [[ "${seconds}" != - ]]; then deadline=$(($(date +%s) + seconds)); fi
  printf '%s\0' "$1" "$2" "$3" "${deadline}" "$5" >"${run}/tend.part"
  mv "${run}/tend.part" "${run}/tend"
  rm -f "${run}/dropped" # see claim.sh
}

# Sets what was written there.
read_tend() {
  local -a words
  mapfile -d '' -t words <"${run}/tend"
  workdir="${words[0]%/}" attempt="${words[1]}" delete="${words[2]}"
  deadline="${words[3]}" resource="${words[4]}"
  logs="${workdir}/logs/${attempt}"
}

# guard WORKDIR DELETE SECONDS RESOURCE: begins to tend a slice on which no run
# goes on. What an earlier run has left still belongs to its own workdir.
guard() {
  local workdir attempt logs delete deadline resource
  if [[ -f "${run}/id" ]]; then
    read_tend
  else
    workdir="$1" attempt=set-up
  fi
  write_tend "${workdir}" "${attempt}" "$2" "$3" "$4"
  touch "${run}/preparing" # until start
  # The workdir of an earlier run is not claimed for what comes now.
  if [[ "${attempt}" != set-up ]]; then touch "${run}/dropped"; fi
  start_tending
}

# retend DELETE SECONDS: goes on as a controller wants it that has adopted the
# run.
retend() {
  local workdir attempt logs delete deadline resource
  read_tend
  write_tend "${workdir}" "${attempt}" "$1" "$2" "${resource}"
  start_tending
}

# Brings the log of this attempt to the workdir. That also shows the controller
# that this machine is alive when ssh does not reach it.
keep_log() {
  local workdir attempt logs delete deadline resource number
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

# Whether a run or a set-up goes on here.
is_busy() {
  unit_runs || ! flock -n "${home}/setup.lock" true
}

# why_delete DELETE DEADLINE LATE: prints why the slice shall be deleted now:
# done, ended or hours; nothing while it is needed. LATE are the seconds for
# which another worker may do it first. A run without an exit code has ended,
# too: its machine went down.
why_delete() {
  local delete="$1" deadline="$2" late="$3" now used good=""
  now="$(date +%s)"
  used="$(stat -c %Y "${run}/used")"
  if [[ "${deadline}" != - ]] && ((now >= deadline + late)); then
    echo hours
    return
  fi
  if [[ "${delete}" == never || "${delete}" == hours ]] || is_busy ||
    ((now - used < grace_seconds + late)); then
    return
  fi
  # Nobody will start the run whose controller has gone for so long.
  if [[ "${delete}" == "done" && -f "${run}/preparing" ]]; then
    if ((now - used >= 6 * grace_seconds + late)); then echo ended; fi
    return
  fi
  if [[ -f "${run}/exit" && ! -f "${run}/stopped" ]]; then
    good="$(<"${run}/exit")"
  fi
  # What is done for worker 1 may have failed for worker 0.
  if [[ "${delete}" == "done" && ("${good}" != 0 || "${late}" != 0) ]]; then
    return
  fi
  if [[ "${good}" == 0 ]]; then echo "done"; else echo ended; fi
}

# Ends the run and deletes the slice.
end_payment() {
  local why="$1" workdir attempt logs delete deadline resource
  read_tend
  echo "$(date -u +%FT%TZ): ${why}"
  end_run || echo "The run did not end."
  keep_log || echo "The log was not kept."
  drop_claim || echo "logs/RUNNING stays."
  if [[ "${delete}" == never ]]; then return; fi
  if [[ -n "${workdir}" ]]; then
    echo "${why}" | put_file "${logs}/deleted.txt" || true
  fi
  delete_slice "${resource}" || echo "The slice could not be deleted."
}

# The main process of the unit byol-tend, which outlives the run and a reboot.
tend() {
  local round=0 number late="" why
  local workdir attempt logs delete deadline resource
  exec >>"${run}/tend.log" 2>&1
  read_tend
  number="$(worker_number || true)"
  case "${number}" in
    0) late=0 ;;
    1) late=$((3 * grace_seconds)) ;;
    *) ;;
  esac
  # After a reboot the controller needs time to find out.
  touch "${run}/used"
  if [[ "${number}" == 0 && ! -f "${run}/preparing" ]]; then
    # Beside the loop, because it takes minutes, and after the run in all that
    # the machine has to give. It ends with this unit.
    nice -n 19 timeout 1800 bash "${script}" pack ||
      echo "The packages were not kept." &
  fi
  while true; do
    if is_busy; then touch "${run}/used"; fi
    # First, because nothing that goes wrong with the log may keep it from this.
    if [[ -n "${late}" ]]; then
      why="$(why_delete "${delete}" "${deadline}" "${late}")"
      if [[ -n "${why}" ]]; then end_payment "${why}"; fi
    fi
    if ((round % 3 == 0)); then
      keep_log || echo "The log was not kept."
      if [[ "${number}" == 0 ]]; then
        keep_claim || echo "The claim was not kept."
      fi
    fi
    round=$((round + 1))
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
