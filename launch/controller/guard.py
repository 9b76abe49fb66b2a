"""The machines' start-up script, which guards a slice until its set-up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from launch.controller.calls import Console
from launch.controller.settings import REPOSITORY, Settings

MINUTES = 60  # after a boot; see guard.sh
_SCRIPT = REPOSITORY / "launch" / "guard.sh"
_KEY = "startup-script"
# What stands between two entries; the last is in no text that a person types.
_DELIMITERS = (",", ";", "|", "~", "\x1f")


def is_given(chosen: Settings) -> bool:
  """Whether the slice gets it: it is not to stay, and has none of its own."""
  return chosen.asked.delete != "never" and not _has_own(chosen)


def _has_own(chosen: Settings) -> bool:
  return any(entry.startswith(f"{_KEY}=") for entry in _entries(chosen))


def say_if_left_out(chosen: Settings, console: Console) -> None:
  """Says so if a start-up script of the person's own takes its place."""
  if chosen.asked.delete != "never" and _has_own(chosen):
    console.say(
      f"--metadata has a {_KEY}, which takes the place of launch/guard.sh: if "
      "this program goes before the set-up, the slice stays and is paid for."
    )


def flags(chosen: Settings, resource: str) -> tuple[str, ...]:
  """What `gcloud compute tpus ... create` gets as metadata of the machines.

  Args:
    chosen: what was asked for.
    resource: the name of what is to be deleted, see `Cloud.resource`.
  """
  if not is_given(chosen):
    given = chosen.asked.values.get("metadata", "")
    return (f"--metadata={given}",) if given else ()
  entries = [*_entries(chosen), f"byol-resource={resource}"]
  script = _joined([f"{_KEY}={_SCRIPT}"])
  return f"--metadata={_joined(entries)}", f"--metadata-from-file={script}"


def _entries(chosen: Settings) -> list[str]:
  """KEY=VALUE of --metadata, as gcloud reads it (`gcloud topic escaping`)."""
  text = chosen.asked.values.get("metadata", "")
  found = re.fullmatch(r"\^([^^]+)\^(.*)", text, re.DOTALL)
  delimiter, text = found.groups() if found else (",", text)
  return [entry for entry in text.split(delimiter) if entry]


def _joined(entries: Sequence[str]) -> str:
  """The entries as gcloud reads them, by the first delimiter that none has."""
  text = "".join(entries)
  delimiter = next(mark for mark in _DELIMITERS if mark not in text)
  before = "" if delimiter == "," else f"^{delimiter}^"
  return before + delimiter.join(entries)
