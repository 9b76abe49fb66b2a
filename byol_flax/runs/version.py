"""Tells which code is running, for checkpoints and summaries."""

import importlib.metadata
import pathlib
import subprocess


def code_version() -> str:
  """The commit of the source tree ("-dirty" if changed), or the release.

  If the tree was shipped without its history, the file COMMIT tells. An
  installed package may lie in somebody else's tree, whose commit says nothing.
  """
  root = pathlib.Path(__file__).resolve().parents[2]
  shipped = root / "COMMIT"
  if shipped.exists():
    return shipped.read_text().strip()
  if not (root / ".git").exists():
    return _release()
  try:
    described = subprocess.run(
      ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
      cwd=root,
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
      process_group=0,  # so that signals to our group do not reach it
    )
    return described.stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return _release()


def _release() -> str:
  return "release " + importlib.metadata.version("byol-flax")
