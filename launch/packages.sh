# shellcheck shell=bash
# Sourced by worker.sh: Python and the packages of a worker.
# shellcheck disable=SC2154

python_version=3.12

setup() {
  mkdir -p "${run}"
  # Waits for an earlier set-up, which may go on although its ssh was lost.
  exec 9>"${home}/setup.lock"
  flock 9
  # A separate script, because `set -e` has no effect inside an `if`.
  if ! bash "${script}" install >"${run}/setup.log" 2>&1; then
    tail -n 20 "${run}/setup.log" | name_lines >&2
    die "The set-up failed; the lines above are the end of ${run}/setup.log."
  fi
}

install() {
  local wanted
  wanted="$(cat "${code}/pyproject.toml" "${code}/constraints.txt" \
    <(echo "${python_version}") | sha256sum | cut -d ' ' -f 1)"
  if [[ -f "${venv}/stamp" && "$(<"${venv}/stamp")" == "${wanted}" ]]; then
    echo "Nothing to install."
    return
  fi
  rm -rf "${venv}"
  PATH="${HOME}/.local/bin:${PATH}"
  # The image's own Python is 3.10, which JAX no longer supports; uv brings
  # another one without root.
  if ! command -v uv >/dev/null; then
    python3 -m pip install --user --quiet uv
  fi
  uv venv --python "${python_version}" "${venv}"
  # The requirements only: the package itself runs from the shipped folder, so
  # that no older commit can hide in site-packages. jax[tpu] pins libtpu.
  uv pip install --python "${venv}/bin/python" \
    --constraint "${code}/constraints.txt" \
    --requirement "${code}/pyproject.toml" --extra tpu
  # Written last, so that half an installation does not count.
  printf '%s' "${wanted}" >"${venv}/stamp"
}
