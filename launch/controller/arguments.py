"""The command line of launch/tpu_vm.sh, as it was typed."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from launch.controller.ending import Ended

COMMANDS = ("run", "up", "status", "logs", "tensorboard", "stop", "delete")
_VALUES = ("workdir", "data", "slice", "zone", "project", "name", "commit")
USAGE = pathlib.Path(__file__).with_name("usage.txt")


@dataclasses.dataclass
class Arguments:
  """What was asked for; "" where nothing was said.

  Attributes:
    command: one of `COMMANDS`.
    config: name of a file of configs/, without folder and suffix.
    argument: what followed it, with the colon.
    overrides: `--config.key=value`, as typed.
    values: option, without dashes -> its value.
    spot: whether the slice may be preempted.
    queued: whether it is waited for in Google's queue.
    delete_when_done: whether the slice is deleted when the run is done.
    dry_run: whether commands are only printed.
  """

  command: str = "run"
  config: str = ""
  argument: str = ""
  overrides: list[str] = dataclasses.field(default_factory=list)
  values: dict[str, str] = dataclasses.field(default_factory=dict)
  spot: bool = True
  queued: bool = False
  delete_when_done: bool = False
  dry_run: bool = False


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
    name, equals, value = word.partition("=")
    if word.startswith("--config.") and equals:
      asked.overrides.append(word)
    elif name.startswith("--") and name[2:] in _VALUES:
      if not equals:
        value = left.pop(0) if left else ""
      if not value:
        raise Ended(2, f"{name} needs a value.")
      asked.values[name[2:]] = value
    elif not _set_flag(asked, word):
      if word in ("--help", "-h"):
        raise Ended(0, USAGE.read_text().rstrip())
      if word.startswith("-"):
        raise Ended(2, f"There is no option {word}; see {program} --help.")
      positional.append(word)
  if positional and positional[0] in COMMANDS:
    asked.command = positional.pop(0)
  if len(positional) > 1:
    raise Ended(2, f"One CONFIG is needed, given are: {' '.join(positional)}.")
  _read_config(asked, positional[0] if positional else "")
  return asked


def _set_flag(asked: Arguments, word: str) -> bool:
  """Whether the word is an option without a value."""
  if word == "--spot":
    asked.spot = True
  elif word == "--on-demand":
    asked.spot = False
  elif word == "--queued":
    asked.queued = True
  elif word == "--delete-when-done":
    asked.delete_when_done = True
  elif word == "--dry-run":
    asked.dry_run = True
  else:
    return False
  return True


def _read_config(asked: Arguments, text: str) -> None:
  """Reads CONFIG[:ARG] or configs/CONFIG.py[:ARG]."""
  name, colon, argument = text.partition(":")
  asked.argument = colon + argument
  if name.startswith("configs/"):
    name = name[len("configs/") :]
  if name.endswith(".py"):
    name = name[: -len(".py")]
  asked.config = name
  if name or asked.values.get("name"):
    return
  if asked.command in ("run", "up"):
    raise Ended(2, "A CONFIG is needed, such as byol_r50x1.")
  raise Ended(2, "A CONFIG or --name=NAME is needed.")
