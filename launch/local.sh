#!/usr/bin/env bash
# Rehearses a run of several processes on one machine: the same worker entry as
# on a slice, on simulated CPU devices.
#
#   launch/local.sh CONFIG[:ARG] --processes P --devices D [--workdir DIR]
#     [--config.key=value ...]
#
# P processes have D devices each; both are 2 by default. The default workdir is
# runs/local-CONFIG. Each line begins with the number of its process. Ctrl-C,
# TERM or a closed terminal ends all after a save; the same command resumes.
#
# BYOL_PYTHON is the interpreter; the default is .venv/bin/python.
# Exit status: 0 done; 2 wrong usage or config; 75 run again; any other a fault.
set -euo pipefail

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

die() {
  printf 'local.sh: %s\n' "$*" >&2
  exit 2
}

processes=2 devices=2 workdir="" config=""
overrides=()

set_option() {
  case "$1" in
    --processes) processes="$2" ;;
    --devices) devices="$2" ;;
    *) workdir="$2" ;;
  esac
}

while (($#)); do
  case "$1" in
    --config.*=*) overrides+=("$1") ;;
    --processes | --devices | --workdir)
      (($# > 1)) || die "$1 needs a value."
      set_option "$1" "$2"
      shift
      ;;
    --processes=* | --devices=* | --workdir=*)
      set_option "${1%%=*}" "${1#*=}"
      ;;
    --help | -h)
      sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
      exit 0
      ;;
    -*) die "There is no option $1; see launch/local.sh --help." ;;
    *)
      [[ -z "${config}" ]] || die "One CONFIG is needed, not ${config} and $1."
      config="$1"
      ;;
  esac
  shift
done
[[ -n "${config}" ]] || die "A CONFIG is needed, such as byol_digits."
[[ "${processes}" =~ ^[1-9][0-9]*$ ]] || die "--processes is a number from 1."
[[ "${devices}" =~ ^[1-9][0-9]*$ ]] || die "--devices is a number from 1."
argument="${config#"${config%%:*}"}"
config="${config%%:*}"
config="${config#configs/}"
config="${config%.py}"
[[ -f "${repository}/configs/${config}.py" ]] ||
  die "There is no config file configs/${config}.py."
workdir="${workdir:-${repository}/runs/local-${config}}"
# As the trainer reads it; the programs that it compiles are kept there.
if [[ "${workdir}" != gs://* ]]; then
  workdir="$(python3 -I -c 'import os, sys
print(os.path.abspath(os.path.expanduser(sys.argv[1])))' "${workdir}")"
fi

export BYOL_PYTHON="${BYOL_PYTHON:-${repository}/.venv/bin/python}"
[[ -x "${BYOL_PYTHON}" ]] ||
  die "There is no ${BYOL_PYTHON}; run make test, or set BYOL_PYTHON."

# Finds two free ports in a row, for the coordinator and the trainer's channel.
find_port() {
  "${BYOL_PYTHON}" - <<'PYTHON'
import random
import socket

while True:
  port = random.randrange(20000, 32000)
  with socket.socket() as first, socket.socket() as second:
    try:
      first.bind(("127.0.0.1", port))
      second.bind(("127.0.0.1", port + 1))
    except OSError:
      continue
  print(port)
  break
PYTHON
}
port="$(find_port)"

# Prints the lines of stdin, each after the number of its process.
number_lines() {
  local line
  while IFS= read -r line || [[ -n "${line}" ]]; do
    # It reads on even if nobody listens any more.
    printf '%s: %s\n' "$1" "${line}" 2>/dev/null || true
  done
}

pids=() ending=""
trap '' PIPE
trap 'ending=1; kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM HUP
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="${devices}"
for ((i = 0; i < processes; i++)); do
  # A substitution, no pipe, because $! must be the trainer, which gets SIGTERM.
  bash "${repository}/launch/worker.sh" train \
    "--config=${repository}/configs/${config}.py${argument}" \
    "--workdir=${workdir}" "--coordinator=127.0.0.1:${port}" \
    "--process-count=${processes}" "--process-index=${i}" "${overrides[@]}" \
    </dev/null > >(
      trap '' INT TERM HUP
      number_lines "${i}"
    ) 2>&1 &
  pids+=("$!")
  # A signal that came just before did not reach this process.
  if [[ -n "${ending}" ]]; then kill -TERM "$!" 2>/dev/null || true; fi
done

codes=()
for pid in "${pids[@]}"; do
  # A trap interrupts `wait`, whose status then is not that of the process.
  while kill -0 "${pid}" 2>/dev/null; do wait "${pid}" || true; done
  code=0
  wait "${pid}" || code=$?
  codes+=("${code}")
done
outcome="$(python3 "${repository}/launch/controller/outcome.py" "${codes[@]}")"
printf 'local.sh: the processes ended with %s; workdir %s\n' \
  "${codes[*]}" "${workdir}" >&2 || true
exit "${outcome}"
