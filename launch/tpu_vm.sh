#!/usr/bin/env bash
# Keeps a pre-training run going on a Cloud TPU slice until it is done; see
# launch/tpu_vm.sh --help. The program is launch/controller, in Python.
set -eu

controller="$(dirname "${BASH_SOURCE[0]}")/controller"
python="$(command -v python3 || true)"
if [[ -z "${python}" ]] ||
  ! "${python}" -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
  echo "tpu_vm.sh: python3 of version 3.9 or newer is needed on the PATH." >&2
  exit 2
fi
exec "${python}" "${controller}" "$0" "$@"
