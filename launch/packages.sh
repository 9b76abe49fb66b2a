# shellcheck shell=bash
# Sourced by worker.sh: Python and the packages of a worker, the environment.
#
# The first slice installs it from the package registry, and worker 0 then
# leaves it in the workdir as one archive: WORKDIR/environments/KEY.tar.gz, and
# beside it the archive's SHA-256, KEY.tar.gz.sha256. The checksum is written
# last, so an archive without one is not complete. A new slice unpacks it and
# needs no registry. Whatever is wrong with it, the worker installs instead.
#
# The environment is ${home}/venv and the Python that it points at, which uv
# puts into ${home}/python. Both hold absolute paths, so the key names them too.
# shellcheck disable=SC2154

python_version=3.12
# The ssh of a set-up gets 1800 s, see shipping.py.
install_seconds="${BYOL_INSTALL_SECONDS:-1500}"

# setup WORKDIR DELETE SECONDS RESOURCE: makes the environment, unless it is
# there already. Before that it takes care that the slice is not paid for ever
# if the controller goes meanwhile.
setup() {
  local workdir="${1#-}"
  mkdir -p "${run}"
  if unit_runs; then
    echo "A run goes on here, so nothing is changed." | name_lines
    return
  fi
  guard "${workdir}" "$2" "$3" "$4"
  # Waits for an earlier set-up, which may go on although its ssh was lost, but
  # not for one that hangs: the next try of the controller shall find it ended.
  exec 9>"${home}/setup.lock"
  flock -w "$((install_seconds + 60))" 9 ||
    die "An earlier set-up still goes on."
  # A separate script, because `set -e` has no effect inside an `if`.
  if ! timeout -k 10 "${install_seconds}" bash "${script}" install \
    "${workdir}" >"${run}/setup.log" 2>&1; then
    tail -n 20 "${run}/setup.log" | name_lines >&2
    die "The set-up failed; the lines above are the end of ${run}/setup.log."
  fi
}

# Prints which libtpu this machine needs in place of the one that jax[tpu] pins,
# if any; see "v6e" in README.md. JAX reads the same attribute.
other_libtpu() {
  if [[ ! -s "${home}/accelerator" ]]; then
    # Half of a name, or none, would make it another generation for good.
    read_metadata attributes/accelerator-type >"${home}/accelerator.part" ||
      return 1
    mv "${home}/accelerator.part" "${home}/accelerator"
  fi
  if [[ "$(<"${home}/accelerator")" == v6e-* ]]; then echo 0.0.43.2; fi
}

# Prints a name for all that the environment depends on.
environment_key() {
  local libtpu
  libtpu="$(other_libtpu)" || return 1
  {
    cat "${code}/pyproject.toml" "${code}/constraints.txt"
    printf '%s\n' "${python_version}" "$(uname -m)" "${home}" "${libtpu}"
  } | sha256sum | cut -d ' ' -f 1
}

# Whether the environment of that key is on this machine, and whole.
has_environment() {
  [[ -f "${venv}/stamp" && "$(<"${venv}/stamp")" == "$1" ]]
}

# The stamp goes first and comes last, so that half an environment has none.
remove_environment() {
  rm -f "${venv}/stamp"
  rm -rf "${venv}" "${home}/python"
}

install() {
  local workdir="${1:-}" key archive
  key="$(environment_key)" || return 1
  if has_environment "${key}"; then
    echo "Nothing to install."
    return
  fi
  remove_environment
  archive="${workdir%/}/environments/${key}.tar.gz"
  if [[ -z "${workdir}" ]] || ! unpack "${archive}"; then
    install_packages
  fi
  printf '%s' "${key}" >"${venv}/stamp"
}

install_packages() {
  local libtpu
  libtpu="$(other_libtpu)"
  PATH="${HOME}/.local/bin:${PATH}"
  # The image's own Python is 3.10, which JAX no longer supports; uv brings
  # another one without root.
  if ! command -v uv >/dev/null; then
    python3 -m pip install --user --quiet uv
  fi
  # Without the preference uv would take a Python of the machine that has the
  # right version, which the archive would then lack.
  export UV_PYTHON_INSTALL_DIR="${home}/python"
  export UV_PYTHON_PREFERENCE=only-managed
  uv venv --python "${python_version}" "${venv}"
  # The requirements only: the package itself runs from the shipped folder, so
  # that no older commit can hide in site-packages. jax[tpu] pins libtpu.
  uv pip install --python "${venv}/bin/python" \
    --constraint "${code}/constraints.txt" \
    --requirement "${code}/pyproject.toml" --extra tpu
  if [[ -n "${libtpu}" ]]; then
    uv pip install --python "${venv}/bin/python" --no-deps "libtpu==${libtpu}"
  fi
}

# Makes the environment from an archive. If that cannot be, it says why, leaves
# no environment, and takes the checksum of a bad archive away, so that worker 0
# writes another one. What may be the fault of this machine, such as a full
# disk, leaves it. It is called in a condition, where `set -e` has no effect.
unpack() {
  local archive="$1" file="${home}/unpacked.tar.gz" wanted why="" bad=""
  if ! wanted="$(get_file "${archive}.sha256" -)"; then
    echo "There is no archive ${archive}, or it is not complete."
    return 1
  fi
  if ! get_file "${archive}" "${file}"; then
    why="it could not be read"
  elif [[ "$(sha256sum <"${file}")" != "${wanted}" ]]; then
    why="its checksum does not agree" bad=yes
  elif ! tar -xzf "${file}" -C "${home}"; then
    why="it could not be unpacked"
    gzip -tq "${file}" || bad=yes
  elif ! timeout 120 "${venv}/bin/python" -c "import jax"; then
    why="its Python does not import jax" bad=yes
  fi
  rm -f "${file}"
  if [[ -z "${why}" ]]; then
    echo "The packages are those of ${archive}."
    return
  fi
  remove_environment
  echo "The archive ${archive} is not used: ${why}. Installing instead."
  if [[ -n "${bad}" && "$(worker_number || true)" == 0 ]]; then
    remove_file "${archive}.sha256" || true
  fi
  return 1
}

# Leaves the environment as an archive in the workdir of the run, unless one is
# complete there. `tend` calls it on worker 0, beside the run.
pack() {
  local -a words
  local key archive file="${home}/packed.tar.gz"
  mapfile -d '' -t words <"${run}/tend"
  key="$(environment_key)"
  archive="${words[0]%/}/environments/${key}.tar.gz"
  if has_file "${archive}.sha256" && has_file "${archive}"; then
    echo "The packages are there already, as ${archive}."
    return
  fi
  has_environment "${key}"
  trap 'rm -f "${home}/packed.tar.gz"' EXIT
  # Status 1 says that a file changed meanwhile: the run's first imports add
  # their bytecode. What else changes takes the stamp away first.
  tar -C "${home}" --exclude=venv/stamp -I "gzip -1" -cf "${file}" \
    venv python || (($? == 1))
  has_environment "${key}"
  put_file "${archive}" 900 <"${file}"
  sha256sum <"${file}" | put_file "${archive}.sha256"
  echo "The packages are kept as ${archive}."
}
