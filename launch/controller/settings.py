"""What follows from the command line: the slice, the commit, the run."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
import subprocess
from collections.abc import Mapping

from launch.controller import slices
from launch.controller.arguments import DATA_DIR, STAGE_DIR, Arguments
from launch.controller.ending import Ended
from launch.controller.words import quoted

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# The parser of the trainer itself, in the environment that has it.
_CHECK_CONFIG = """
import sys

from byol_flax.commands import config_file
from input_pipeline import paths
from input_pipeline.errors import UsageError

devices = int(sys.argv[1])
words = [word for word in sys.argv[2:] if word.startswith("--config")]
try:
  config = config_file.load_config(words)
except UsageError as error:
  sys.exit(str(error))
if config.batch_size % devices:
  sys.exit(
    f"A batch of {config.batch_size} images does not divide by the {devices} "
    "devices of the slice; give another --slice or --config.batch_size."
  )
name = config.data.name
kind = name.partition(":")[0]
if config.loader.data_dir is None and kind not in (*paths.FOLDERS, "digits"):
  sys.exit(f"A new slice does not have {name}; say by --data where it is.")
print(name, config.data.split, sep="\\n")
"""


@dataclasses.dataclass(frozen=True)
class Pace:
  """How fast and how often; the environment may say otherwise.

  Attributes:
    poll_seconds: between two looks at the run.
    retry_seconds: before something is tried again.
    max_tries: of one gcloud command or set-up step.
    max_restarts: in a row without a newer checkpoint, unless an option says.
    straggler_seconds: for the last workers to end.
    silent_seconds: after which a worker that says nothing counts as lost.
    look_seconds: for one question, to Google or to all workers.
    stuck_seconds: for a slice to leave a state such as REPAIRING.
    log_lines: of every worker.
  """

  poll_seconds: float
  retry_seconds: float
  max_tries: int
  max_restarts: int
  straggler_seconds: float
  silent_seconds: float
  look_seconds: float
  stuck_seconds: float
  log_lines: int


def read_pace(environment: Mapping[str, str]) -> Pace:
  """Reads the variables that `--help` names.

  Raises:
    Ended: one of them is no number, or too small.
  """

  def number(name: str, default: float, least: float = 0) -> float:
    text = environment.get(name) or str(default)
    try:
      value = float(text)
    except ValueError:
      value = math.nan
    # A nan is not at least anything.
    if not least <= value < math.inf:
      raise Ended(2, f"{name} is a number from {least:g}, not {text!r}.")
    return value

  return Pace(
    poll_seconds=number("BYOL_POLL_SECONDS", 60),
    retry_seconds=number("BYOL_RETRY_SECONDS", 60),
    max_tries=int(number("BYOL_MAX_TRIES", 5, least=1)),
    max_restarts=int(number("BYOL_MAX_RESTARTS", 2)),
    straggler_seconds=number("BYOL_STRAGGLER_SECONDS", 600),
    silent_seconds=number("BYOL_SILENT_SECONDS", 600),
    look_seconds=number("BYOL_LOOK_SECONDS", 120),
    stuck_seconds=number("BYOL_STUCK_SECONDS", 3600),
    log_lines=int(number("BYOL_LOG_LINES", 20)),
  )


@dataclasses.dataclass(frozen=True)
class Settings:
  """All that a command needs to know; "" where it does not matter to it.

  Attributes:
    asked: the command line.
    program: how this program was called, for messages.
    pace: see there.
    slice: accelerator type, such as v3-32.
    zone: where it is.
    project: who pays.
    name: of the slice.
    commit: the whole hash of what the workers run.
    workdir: of the run.
    trainer_arguments: what `byol train` gets on every worker.
    run_id: made from them; by it a controller recognises its run.
    max_restarts: in a row without a newer checkpoint.
    dataset: name and split of the images; "" and "" where the config could not
      be read here.
  """

  asked: Arguments
  program: str
  pace: Pace
  slice: str
  zone: str
  project: str
  name: str
  commit: str
  workdir: str
  trainer_arguments: tuple[str, ...]
  run_id: str
  max_restarts: int
  dataset: tuple[str, str]

  @property
  def kind(self) -> str:
    """How the slice is paid for, in words."""
    kind = "spot" if self.asked.spot else "on-demand"
    kind = "reserved" if "reserved" in self.asked.flags else kind
    return kind + (", queued" if self.asked.queued else "")

  def own_command(self, command: str) -> str:
    """What a person would type next, ready to paste."""
    asked = self.asked
    words = [self.program, command]
    if asked.config:
      words.append(asked.config + asked.argument)
    words += [f"--name={self.name}", f"--project={self.project}"]
    words.append(f"--zone={self.zone}")
    if asked.queued:
      words.append("--queued")
    if "internal-ip" in asked.flags:
      words.append("--internal-ip")
    if command == "run":
      known = ("name", "project", "zone", "slice", "workdir", "commit")
      words += [f"--slice={self.slice}", f"--workdir={self.workdir}"]
      words.append(f"--commit={self.commit}")
      given = asked.values.items()
      words += [f"--{name}={text}" for name, text in given if name not in known]
      said = asked.flags - {"queued", "internal-ip", "yes"}
      words += [f"--{name}" for name in sorted(said)]
      words += ["--yes", *asked.overrides]
    return quoted(words)


def fill_in(
  asked: Arguments, program: str, environment: Mapping[str, str]
) -> Settings:
  """Adds what follows from the command line, and checks it.

  Raises:
    Ended: something is missing or wrong.
  """
  if (
    asked.config
    and not (REPOSITORY / "configs" / f"{asked.config}.py").is_file()
  ):
    raise Ended(2, f"There is no config file configs/{asked.config}.py.")
  starts = asked.command in ("run", "up")
  values = asked.values
  slice_, default_zone = _choose_slice(values.get("slice", ""), asked.config)
  zone = values.get("zone") or default_zone
  name = values.get("name") or asked.config.replace("_", "-")
  if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
    raise Ended(
      2, f"{name} cannot name a slice: small letters, digits and dashes only."
    )
  project = values.get("project") or environment.get("CLOUDSDK_CORE_PROJECT")
  project = project or _project_of_gcloud()
  if not project:
    raise Ended(
      2, "A project is needed: --project=ID, or gcloud config set project ID."
    )
  if not zone:
    raise Ended(
      2,
      "A zone is needed: --zone=ZONE; launch/slices.tsv has none for "
      f"{asked.config or 'this name'}{slice_ and ' on ' + slice_}.",
    )
  pace = read_pace(environment)
  commit = values.get("commit", "")
  if starts:
    _check_slice(slice_, asked.config)
    commit = _choose_commit(commit, asked.config)
  workdir = values.get("workdir", "")
  needs_workdir = asked.command in ("run", "tensorboard")
  needs_workdir = needs_workdir or (starts and workdir != "")
  if needs_workdir and not re.match(r"gs://.|/", workdir):
    raise Ended(
      2,
      "A workdir is needed: --workdir=gs://BUCKET/FOLDER, or an absolute path "
      "that all workers share.",
    )
  trainer_arguments = [
    f"--config=configs/{asked.config}.py{asked.argument}",
    f"--workdir={workdir}",
  ]
  if "data" in values:
    trainer_arguments.append(DATA_DIR + values["data"])
  if "stage" in values:
    trainer_arguments.append(STAGE_DIR + values["stage"])
  trainer_arguments += asked.overrides
  dataset = ("", "")
  if starts:
    dataset = _read_dataset(trainer_arguments, commit, slices.devices(slice_))
  return Settings(
    asked=asked,
    program=program,
    pace=pace,
    slice=slice_,
    zone=zone,
    project=project,
    name=name,
    commit=commit,
    workdir=workdir,
    trainer_arguments=tuple(trainer_arguments),
    run_id=_id_of(trainer_arguments),
    max_restarts=int(values.get("max-restarts") or pace.max_restarts),
    dataset=dataset,
  )


def git(*words: str, text: str | None = None) -> str | None:
  """What git prints about our repository; None when it fails."""
  result = subprocess.run(
    ["git", "-C", str(REPOSITORY), *words],
    input=text,
    capture_output=True,
    text=True,
    check=False,
  )
  return None if result.returncode else result.stdout.strip()


def _choose_slice(asked: str, config: str) -> tuple[str, str]:
  """(slice, its zone in launch/slices.tsv, "" where no row tells).

  Raises:
    Ended: there is no row for the generation that was asked for.
  """
  name = slices.full_name(asked)
  if slices.is_generation(name):
    row = slices.row_of(config, name)
    if config and not row[0]:
      raise Ended(
        2,
        f"launch/slices.tsv has no {asked} row for {config}; give --slice="
        f"{name}-N.",
      )
    return row
  if not name:
    return slices.row_of(config)
  # A zone has some generations only, so a row of another does not tell it.
  return name, slices.row_of(config, slices.generation(name))[1]


def _check_slice(slice_: str, config: str) -> None:
  if not slice_:
    raise Ended(
      2,
      "A slice is needed: --slice=TYPE; launch/slices.tsv has no row for "
      f"{config}.",
    )
  if not slices.generation(slice_):
    raise Ended(
      2,
      f"{slice_} is no slice that this script knows: v2-N, v3-N, v4-N, "
      "v5litepod-N, v5p-N or v6e-N.",
    )


def _project_of_gcloud() -> str:
  """The project that gcloud is set to; "" if there is none."""
  result = subprocess.run(
    ["gcloud", "config", "get-value", "project"],
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    check=False,
  )
  # The last line, because gcloud may print notices before it.
  pattern = re.compile(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]+")
  found = [x for x in result.stdout.splitlines() if pattern.fullmatch(x)]
  return found[-1] if found else ""


def _choose_commit(asked: str, config: str) -> str:
  """The commit to send; uncommitted changes would silently not be sent."""
  wanted = asked or "HEAD"
  commit = git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}")
  if not commit:
    raise Ended(2, f"There is no commit {wanted}.")
  if wanted == "HEAD" and git("status", "--porcelain"):
    raise Ended(
      2,
      "There are uncommitted changes, which would not reach the slice; commit "
      f"or stash them, or give --commit={commit}.",
    )
  if git("cat-file", "-e", f"{commit}:configs/{config}.py") is None:
    raise Ended(2, f"Commit {commit} has no configs/{config}.py.")
  return commit


def _id_of(trainer_arguments: list[str]) -> str:
  """The commit is not part of it, so that a mended run is the same run."""
  text = "".join(f"{word}\0" for word in trainer_arguments)
  return (git("hash-object", "--stdin", text=text) or "")[:12]


def _read_dataset(
  trainer_arguments: list[str], commit: str, devices: int
) -> tuple[str, str]:
  """Reads the config where our Python is, which also finds a misspelt key.

  Returns:
    name and split of the images; "" and "" where it is not, or for a commit
    that is not checked out.
  """
  python = REPOSITORY / ".venv" / "bin" / "python"
  if not os.access(python, os.X_OK) or commit != git("rev-parse", "HEAD"):
    return "", ""
  words = [str(python), "-", str(devices), *trainer_arguments]
  result = subprocess.run(
    words,
    input=_CHECK_CONFIG,
    stdout=subprocess.PIPE,
    text=True,
    cwd=REPOSITORY,
    check=False,
  )
  if result.returncode:
    raise Ended(2, "The config is refused, see above.")
  name, split = result.stdout.splitlines()[-2:]
  return name, split
