"""The command line of launch/tpu_vm.sh, as it was typed."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

from launch.controller.ending import Ended

COMMANDS = ("run", "up", "status", "logs", "tensorboard", "stop", "delete")
USAGE = pathlib.Path(__file__).with_name("usage.txt")

_NUMBER = r"[0-9]+(\.[0-9]+)?"
_LABEL = "[a-z][a-z0-9_-]*=[a-z0-9_-]*"
# Options with a value: the value's pattern and how a person would say it.
_VALUES: Mapping[str, tuple[str, str]] = {
  "workdir": (".+", ""),
  "data": ("(gs://.|/).*", "gs://BUCKET/FOLDER or an absolute path"),
  "data-disk": ("[a-z][-a-z0-9]*", "the name of a disk"),
  "stage": ("/.+", "an absolute path on each worker, such as /dev/shm/byol"),
  "slice": (".+", ""),
  "zone": (".+", ""),
  "project": (".+", ""),
  "name": (".+", ""),
  "commit": (".+", ""),
  "delete": ("never|done|always", "never, done or always"),
  "max-hours": (rf"(?=.*[1-9]){_NUMBER}", "a number of hours above 0"),
  "max-restarts": ("[0-9]+", "a whole number"),
  "price": (_NUMBER, "US dollars for a device-hour"),
  "service-account": (r"[^@\s,]+@[^@\s,]+", "the e-mail address of one"),
  "network": (r"[\w./-]+", "the name of a network"),
  "subnetwork": (r"[\w./-]+", "the name of a subnetwork"),
  "labels": (f"{_LABEL}(,{_LABEL})*", "KEY=VALUE,... in small letters"),
  "tags": (r"[a-z][a-z0-9-]*(,[a-z][a-z0-9-]*)*", "TAG,TAG,..."),
  "metadata": (
    r"\^[^^]+\^[\w-]+=.*|[\w-]+=[^,]*(,[\w-]+=[^,]*)*",
    "KEY=VALUE,...",
  ),
}
_FLAGS = [
  "spot",
  "on-demand",
  "queued",
  "reserved",
  "internal-ips",
  "internal-ip",
  "yes",
  "dry-run",
  "delete-when-done",
]
# What `gcloud compute tpus ... create` gets as it is; for metadata see guard.py
CREATE_VALUES = ["service-account", "network", "subnetwork", "labels", "tags"]
CREATE_FLAGS = ("reserved", "internal-ips")
STAGE_DIR = "--config.loader.stage_dir="
DATA_DIR = "--config.loader.data_dir="
# Where every worker mounts the disk of --data-disk, see data_disk.sh.
DISK_FOLDER = "/mnt/disks/data"


@dataclasses.dataclass
class Arguments:
  """What was asked for.

  Attributes:
    command: one of `COMMANDS`.
    config: name of a file of configs/, without folder and suffix.
    argument: what followed it, with the colon.
    overrides: `--config.key=value`, as typed.
    values: option, without dashes -> its value; only what was typed.
    flags: options without a value that were typed, without dashes.
  """

  command: str = "run"
  config: str = ""
  argument: str = ""
  overrides: list[str] = dataclasses.field(default_factory=list)
  values: dict[str, str] = dataclasses.field(default_factory=dict)
  flags: set[str] = dataclasses.field(default_factory=set)

  @property
  def spot(self) -> bool:
    """Whether the slice may be preempted."""
    return not self.flags & {"on-demand", "reserved"}

  @property
  def queued(self) -> bool:
    """Whether the slice is waited for in Google's queue."""
    return "queued" in self.flags

  @property
  def dry_run(self) -> bool:
    """Whether commands are only printed."""
    return "dry-run" in self.flags

  @property
  def delete(self) -> str:
    """When the slice is deleted: never, done or always."""
    return self.values.get("delete", "done")

  def number(self, name: str) -> float | None:
    """The value of an option that is a number; None if it was not typed."""
    return float(self.values[name]) if name in self.values else None


def parse(program: str, words: Sequence[str]) -> Arguments:
  """Reads the command line.

  Raises:
    Ended: it was asked for help (status 0), or a word is not understood (2).
  """
  asked = Arguments()
  positional: list[str] = []
  left = list(words)
  while left:
    word = left.pop(0)
    option, equals, value = word.partition("=")
    name = option[2:] if option.startswith("--") else ""
    if word.startswith("--config.") and equals:
      asked.overrides.append(word)
    elif name in _VALUES:
      if not equals:
        value = left.pop(0) if left else ""
      asked.values[name] = _checked(name, value)
    elif name in _FLAGS and not equals:
      _set_flag(asked, name)
    elif word in ("--help", "-h"):
      raise Ended(0, USAGE.read_text().rstrip())
    elif word.startswith("-"):
      raise Ended(2, f"There is no option {word}; see {program} --help.")
    else:
      positional.append(word)
  if {"spot", "reserved"} <= asked.flags:
    raise Ended(2, "A reserved slice is not preempted; leave out --spot.")
  _settle_data(asked)
  if positional and positional[0] in COMMANDS:
    asked.command = positional.pop(0)
  if len(positional) > 1:
    raise Ended(2, f"One CONFIG is needed, given are: {' '.join(positional)}.")
  _read_config(asked, positional[0] if positional else "")
  return asked


def _settle_data(asked: Arguments) -> None:
  """Fills in where the images are, and refuses what contradicts itself."""
  values = asked.values
  for name, key in (("stage", STAGE_DIR), ("data", DATA_DIR)):
    set_too = [x for x in asked.overrides if x.startswith(key)]
    if name in values and set_too:
      raise Ended(2, f"--{name} sets what {set_too[0]} sets; leave out one.")
  for name in ("data", "workdir"):
    if name in values:
      values[name] = values[name].rstrip("/")
      if not values[name]:
        raise Ended(2, f"--{name} is a folder below /, not / itself.")
  if "data-disk" not in values:
    return
  data = values.setdefault("data", DISK_FOLDER)
  if not f"{data}/".startswith(f"{DISK_FOLDER}/"):
    raise Ended(
      2, f"With --data-disk --data is a folder below {DISK_FOLDER}, not {data}."
    )


def _checked(name: str, value: str) -> str:
  if not value:
    raise Ended(2, f"--{name} needs a value.")
  pattern, meaning = _VALUES[name]
  if not re.fullmatch(pattern, value, re.DOTALL):
    raise Ended(2, f"--{name} takes {meaning}, not {value}.")
  return value


def _set_flag(asked: Arguments, name: str) -> None:
  if name == "delete-when-done":
    asked.values["delete"] = "done"
    return
  # The last of two that contradict each other counts.
  asked.flags -= (
    {"spot", "on-demand"} if name in ("spot", "on-demand") else set()
  )
  asked.flags.add(name)


def _read_config(asked: Arguments, text: str) -> None:
  """Reads CONFIG[:ARG] or configs/CONFIG.py[:ARG]."""
  name, colon, argument = text.partition(":")
  asked.argument = colon + argument
  if name.startswith("configs/"):
    name = name[len("configs/") :]
  if name.endswith(".py"):
    name = name[: -len(".py")]
  asked.config = name
  if name:
    return
  if asked.command in ("run", "up"):
    raise Ended(2, "A CONFIG is needed, such as byol_r50x1.")
  if not asked.values.get("name"):
    raise Ended(2, "A CONFIG or --name=NAME is needed.")
