# shellcheck shell=bash
# Sourced by control.sh and local.sh: one outcome from many exit codes.

# Prints the outcome of a run from the exit codes of all its processes:
#   0     done
#   2     wrong usage or config
#   75    preempted after a save
#   143   killed by a SIGTERM before the trainer could save; counts as 75
#   lost  the machine went down; counts as 75
#   134   aborted because another process died, whose code says more
# Any other code is a fault.
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
