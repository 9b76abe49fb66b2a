#!/usr/bin/env bash
# The start-up script of a slice's machines. It deletes a slice that nobody sets
# up, because the controller may go while the slice waits in Google's queue or
# is made. From the set-up on the unit byol-tend looks after that, see
# tending.sh, of which this needs to be independent: it is one file.
#
# Google's agent runs it as root on every worker at every boot, and the boot
# waits for it. So it leaves a copy of itself to systemd, which does the rest.
# What that says is in the journal of the unit byol-guard, and on the console.
set -euo pipefail

metadata="http://metadata.google.internal/computeMetadata/v1/instance"
# Longer than the launcher waits for the other machines and for the first copy.
guard_seconds="${BYOL_GUARD_SECONDS:-3600}"
retry_seconds="${BYOL_GUARD_RETRY_SECONDS:-60}"

# Prints one value of this machine's metadata.
read_metadata() {
  curl -sS -f -m 10 -H "Metadata-Flavor: Google" "${metadata}/$1"
}

# Asks the TPU API to delete the slice, as delete_slice in tending.sh. Each step
# is joined to the next, because `set -e` has no effect in a condition.
delete_slice() {
  local resource="$1" token
  token="$(read_metadata service-accounts/default/token |
    sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')" &&
    curl -sS -f -m 60 -X DELETE -H @- \
      "https://tpu.googleapis.com/v2/${resource}" \
      <<<"Authorization: Bearer ${token}"
}

guard() {
  local number resource said
  number="$(read_metadata attributes/agent-worker-number || hostname)"
  if [[ "${number##*-w-}" != 0 ]]; then return; fi
  sleep "${guard_seconds}"
  # What was accepted may still fail, so it is asked until the machine is gone.
  until said="$(LC_ALL=C systemctl cat byol-tend.service 2>&1)"; do
    if [[ "${said}" != *"No files found"* ]]; then
      echo "byol: systemd does not say whether it was set up: ${said}"
      sleep "${retry_seconds}"
      continue
    fi
    echo "byol: Nobody has set this slice up for ${guard_seconds} s: deleting."
    if resource="$(read_metadata attributes/byol-resource)"; then
      if [[ "${resource}" == */queuedResources/* ]]; then
        resource+="?force=true"
      fi
      delete_slice "${resource}" || echo "byol: It could not be deleted."
    fi
    sleep "${retry_seconds}"
  done
}

if [[ "${1:-}" == wait ]]; then
  guard
else
  copy="$(mktemp)"
  cat "$0" >"${copy}"
  systemd-run --quiet --unit=byol-guard --property=Restart=on-failure \
    --property=StandardOutput=journal+console /bin/bash "${copy}" wait
fi
