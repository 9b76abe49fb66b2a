# shellcheck shell=bash
# Sourced by worker.sh: the disk of --data-disk, which all workers read.
# shellcheck disable=SC2154

disk_folder="${BYOL_DISK_FOLDER:-/mnt/disks/data}"

# disk [DIR]: mounts the disk read-only, unless it is mounted, and looks whether
# DIR can be listed. Prints `byol-disk HOST ok -`, or `byol-disk HOST failed
# REASON`.
disk() {
  local why
  if why="$(mount_disk "$@" 2>&1)"; then
    printf 'byol-disk %s ok -\n' "${host}"
  else
    printf 'byol-disk %s failed %s\n' "${host}" "$(tr '\n' ' ' <<<"${why}")"
  fi
}

# Each step is joined to the next, because it is called in a condition, where
# `set -e` has no effect. The journal of a disk that cannot be written to cannot
# be replayed, hence norecovery, which ext4 and XFS both know (the kernel's
# Documentation/admin-guide/ext4.rst and xfs.rst).
mount_disk() {
  local folder="${1:-${disk_folder}}" device
  if ! mountpoint -q "${disk_folder}"; then
    device="$(find_disk)" || {
      printf '%s\n' "${device}"
      return 1
    }
    sudo mkdir -p "${disk_folder}" &&
      sudo timeout 60 mount -o ro,norecovery "${device}" "${disk_folder}" ||
      return 1
  fi
  timeout 60 ls "${folder}" >/dev/null
}

# Prints the device of the disk, or why there is none. Names are no guide: a
# second disk is sdb on some machines and nvme0n2 on others, and one that was
# attached again has the next letter. It is the only SCSI or NVMe disk of which
# nothing is mounted or, among several, the only one that is attached read-only.
find_disk() {
  local device mounted read_only
  local -a free=() locked=()
  while read -r device; do
    mounted="$(lsblk -nro MOUNTPOINT "${device}" | tr -d '[:space:]')"
    if [[ -n "${mounted}" ]]; then continue; fi
    free+=("${device}")
    read_only="$(lsblk -dnro RO "${device}")"
    if [[ "${read_only}" == 1 ]]; then locked+=("${device}"); fi
  done < <(lsblk -dnpro NAME | grep -E '^/dev/(sd|nvme)')
  if ((${#free[@]} > 1)); then free=("${locked[@]}"); fi
  case "${#free[@]}" in
    0)
      echo "No disk is attached besides those in use; was this slice made" \
        "without --data-disk?"
      return 1
      ;;
    1) printf '%s' "${free[0]}" ;;
    *)
      echo "Several disks may be meant: ${free[*]}"
      return 1
      ;;
  esac
}
