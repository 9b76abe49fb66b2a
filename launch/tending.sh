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
    # First, because nothing that goes wrong with the log may keep it from this.
    if [[ "$(worker_number || true)" == 0 ]]; then
      why="$(why_delete "${delete}" "${deadline}")"
      if [[ -n "${why}" ]]; then
        echo "$(date -u +%FT%TZ): ${why}"
        end_run || echo "The run did not end."
        keep_log || echo "The log was not kept."
        if [[ "${delete}" != never ]]; then
          echo "${why}" | put_file "${logs}/deleted.txt" || true
          delete_slice "${resource}" || echo "The slice could not be deleted."
        fi
      fi
    fi
    if ((round % 3 == 0)); then keep_log || echo "The log was not kept."; fi
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
