# shellcheck shell=bash
# Sourced by control.sh and local.sh: one outcome from many exit codes.

# Prints the outcome of a run from the exit codes of all its processes. Codes:
# 0 done; 2 wrong usage or config; 75 preempted after a save; 143 killed by a
# SIGTERM before the trainer could save, and lost, a machine that went down:
# both count as 75; 134 a process that aborted because another one died, so the
# other one's code says more; any other a fault.
outcome_of() {
  local code fault="" aborted=0 preempted=0
  for code in "$@"; do
    case "${code}" in
      0) ;;
      2)
        echo 2
        return
        ;;
      75 | 143 | lost) preempted=1 ;;
      134) aborted=1 ;;
      *) fault="${fault:-${code}}" ;;
    esac
  done
  if [[ -n "${fault}" ]]; then
    echo "${fault}"
  elif ((aborted)); then
    echo 134
  elif ((preempted)); then
    echo 75
  else
    echo 0
  fi
}
