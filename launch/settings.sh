# shellcheck shell=bash
# Sourced by tpu_vm.sh: its arguments, and the settings that follow from them.
# shellcheck disable=SC2034,SC2154

# --- arguments ----------------------------------------------------------------

parse_arguments() {
  local word value
  local -a positional=()
  while (($#)); do
    word="$1"
    shift
    case "${word}" in
      --config.*=*) overrides+=("${word}") ;;
      --workdir | --data | --slice | --zone | --project | --name | --commit)
        (($#)) || die 2 "${word} needs a value."
        set_option "${word#--}" "$1"
        shift
        ;;
      --workdir=* | --data=* | --slice=* | --zone=* | --project=* | --name=* | \
        --commit=*)
        value="${word#*=}"
        word="${word%%=*}"
        set_option "${word#--}" "${value}"
        ;;
      --spot) spot=1 ;;
      --on-demand) spot=0 ;;
      --queued) queued=1 ;;
      --delete-when-done) delete_when_done=1 ;;
      --dry-run) dry_run=1 ;;
      --help | -h)
        sed -n '2,/^set /p' "${repository}/launch/tpu_vm.sh" |
          sed -n 's/^# \{0,1\}//p'
        exit 0
        ;;
      -*) die 2 "There is no option ${word}; see ${program} --help." ;;
      *) positional+=("${word}") ;;
    esac
  done
  case "${positional[0]:-}" in
    run | up | status | logs | tensorboard | stop | delete)
      command="${positional[0]}"
      positional=("${positional[@]:1}")
      ;;
    *) ;;
  esac
  ((${#positional[@]} <= 1)) ||
    die 2 "One CONFIG is needed, given are: ${positional[*]}."
  read_config "${positional[0]:-}"
}

set_option() {
  [[ -n "$2" ]] || die 2 "--$1 needs a value."
  printf -v "$1" '%s' "$2"
}

# Reads CONFIG[:ARG] or configs/CONFIG.py[:ARG].
read_config() {
  config="${1%%:*}"
  argument="${1#"${config}"}"
  config="${config#configs/}"
  config="${config%.py}"
  if [[ -z "${config}" ]]; then
    case "${command}" in
      run | up) die 2 "A CONFIG is needed, such as byol_r50x1." ;;
      *) [[ -n "${name}" ]] || die 2 "A CONFIG or --name=NAME is needed." ;;
    esac
  elif [[ ! -f "${repository}/configs/${config}.py" ]]; then
    die 2 "There is no config file configs/${config}.py."
  fi
}

# --- settings that follow from the arguments ----------------------------------

fill_in() {
  local row_config row_slice row_zone _
  while IFS=$'\t' read -r row_config row_slice row_zone _; do
    if [[ "${row_config}" == "${config}" ]]; then
      slice="${slice:-${row_slice}}"
      zone="${zone:-${row_zone}}"
    fi
  done <"${repository}/launch/slices.tsv"
  name="${name:-${config//_/-}}"
  [[ "${name}" =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
    die 2 "${name} cannot name a slice: small letters, digits and dashes only."
  project="${project:-${CLOUDSDK_CORE_PROJECT:-}}"
  if [[ -z "${project}" ]]; then
    # The last line, because gcloud may print notices before it.
    project="$(gcloud config get-value project 2>/dev/null </dev/null |
      grep -E '^([a-z0-9.-]+:)?[a-z][-a-z0-9]+$' | tail -n 1 || true)"
  fi
  [[ -n "${project}" ]] ||
    die 2 "A project is needed: --project=ID, or gcloud config set project ID."
  [[ -n "${zone}" ]] ||
    die 2 "A zone is needed: --zone=ZONE; launch/slices.tsv has no row for" \
      "${config:-this name}."
  if [[ "${command}" == run || "${command}" == up ]]; then
    [[ -n "${slice}" ]] ||
      die 2 "A slice is needed: --slice=TYPE; launch/slices.tsv has no row" \
        "for ${config}."
    runtime_version >"${scratch}/version" ||
      die 2 "${slice} is no slice that this script knows: v2-N, v3-N, v4-N," \
        "v5litepod-N, v5p-N or v6e-N."
    choose_commit
  fi
  if [[ "${command}" == run || "${command}" == tensorboard ]]; then
    [[ "${workdir}" == gs://?* || "${workdir}" == /* ]] ||
      die 2 "A workdir is needed: --workdir=gs://BUCKET/FOLDER, or an" \
        "absolute path that all workers share."
  fi
  name_run
  if [[ "${command}" == run || "${command}" == up ]]; then check_config; fi
}

# Otherwise a misspelt key would be found only on a slice that is paid for.
check_config() {
  local head python="${repository}/.venv/bin/python"
  head="$(git -C "${repository}" rev-parse HEAD)"
  if [[ ! -x "${python}" || "${commit}" != "${head}" ]]; then return; fi
  (cd "${repository}" && "${python}" - "${trainer_arguments[@]}" <<'PYTHON'
import sys

from byol_flax.commands import config_file
from input_pipeline.errors import UsageError

try:
  config_file.load_config([x for x in sys.argv[1:] if x.startswith("--config")])
except UsageError as error:
  sys.exit(str(error))
PYTHON
  ) || die 2 "The config is refused, see above."
}

# Chooses the commit to send, and refuses uncommitted changes, which would
# silently not be sent.
choose_commit() {
  local asked="${commit:-HEAD}" changed
  commit="$(git -C "${repository}" rev-parse --verify --quiet \
    "${asked}^{commit}")" || die 2 "There is no commit ${asked}."
  changed="$(git -C "${repository}" status --porcelain)"
  if [[ "${asked}" == HEAD && -n "${changed}" ]]; then
    die 2 "There are uncommitted changes, which would not reach the slice;" \
      "commit or stash them, or give --commit=${commit}."
  fi
  git -C "${repository}" cat-file -e "${commit}:configs/${config}.py" ||
    die 2 "Commit ${commit} has no configs/${config}.py."
}

# Sets the trainer's arguments and, made from them, the ID by which a controller
# recognises its run. The commit is not part of the ID.
name_run() {
  trainer_arguments=("--config=configs/${config}.py${argument}")
  trainer_arguments+=("--workdir=${workdir}")
  if [[ -n "${data}" ]]; then
    trainer_arguments+=("--config.loader.data_dir=${data}")
  fi
  trainer_arguments+=("${overrides[@]}")
  run_id="$(printf '%s\0' "${trainer_arguments[@]}" |
    git hash-object --stdin | cut -c 1-12)"
  kind=on-demand
  if ((spot)); then kind=spot; fi
  if ((queued)); then kind+=", queued"; fi
}

# Prints the command that a person would type next, ready to paste.
own_command() {
  local -a words=("${program}" "$1")
  if [[ -n "${config}" ]]; then words+=("${config}${argument}"); fi
  words+=("--name=${name}" "--project=${project}" "--zone=${zone}")
  if ((queued)); then words+=(--queued); fi
  if [[ "$1" == run ]]; then
    words+=("--slice=${slice}" "--workdir=${workdir}" "--commit=${commit}")
    if [[ -n "${data}" ]]; then words+=("--data=${data}"); fi
    if ((!spot)); then words+=(--on-demand); fi
    if ((delete_when_done)); then words+=(--delete-when-done); fi
    words+=("${overrides[@]}")
  fi
  quoted "${words[@]}"
}
