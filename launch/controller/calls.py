"""Runs one program and keeps what it says, or prints what would be run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from launch.controller.words import quoted

TIMED_OUT = 124  # as of coreutils' timeout
NOT_STARTED = 126  # as of a shell


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a program said.

  Attributes:
    status: its exit status.
    out: its stdout.
    err: its stderr.
  """

  status: int = 0
  out: str = ""
  err: str = ""

  @property
  def error(self) -> str:
    """What gcloud said from ERROR on, or else all but its warnings.

    Warnings speak of quotas and permissions too.
    """
    lines = self.err.splitlines()
    for index, line in enumerate(lines):
      if line.startswith("ERROR"):
        return "\n".join(lines[index:])
    return "\n".join(x for x in lines if not x.startswith("WARNING"))

  @property
  def last_error(self) -> str:
    """The end of it, in one line."""
    return " ".join(self.error.splitlines()[-4:])

  def error_matches(self, pattern: str) -> bool:
    """Whether the error has such a text, in small or large letters."""
    return bool(re.search(pattern, self.error, re.IGNORECASE))


class Console:
  """Talks to the person, and runs programs for them.

  Args:
    dry_run: whether programs are only printed, and nothing else is said.
  """

  def __init__(self, dry_run: bool) -> None:
    self.dry_run = dry_run

  def say(self, *words: str) -> None:
    """Tells something on stderr, because stdout has what was asked for.

    A terminal that is gone must not keep the program from what it has to do.
    """
    if not self.dry_run:
      now = time.strftime("%H:%M:%S")
      with contextlib.suppress(OSError):
        print(now, *words, file=sys.stderr, flush=True)

  def show(self, text: str) -> None:
    """Prints what was asked for."""
    if text and not self.dry_run:
      print(text.rstrip("\n"), flush=True)

  def pause(self, seconds: float) -> None:
    """Sleeps; Ctrl-C and SIGTERM are answered at once."""
    if not self.dry_run:
      time.sleep(seconds)

  def run(self, words: Sequence[str], seconds: float) -> Answer:
    """Runs a program without a shell; a dry run prints it and succeeds.

    Its stdin is closed, because ssh would swallow ours. It has a session of its
    own, so that Ctrl-C reaches us alone, and we end it with all it started.

    Args:
      words: program and arguments.
      seconds: after which it is ended; what it said until then is kept.

    Returns:
      its answer, also where it could not be started: that says so as an error,
      because it may pass, as a want of memory does.
    """
    if self.dry_run:
      print(quoted(words), flush=True)
      return Answer()
    try:
      process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
      )
    except OSError as error:
      return Answer(NOT_STARTED, "", f"ERROR: {words[0]}: {error}\n")
    try:
      out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
      _end(process, signal.SIGKILL)
      out, err = process.communicate()
      late = f"ERROR: {words[0]} gave no answer within {seconds:g} s."
      return Answer(TIMED_OUT, out, f"{err.rstrip()}\n{late}\n")
    except BaseException:
      _end(process, signal.SIGTERM)
      raise
    return Answer(process.returncode, out, err)


def _end(process: subprocess.Popen[str], number: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, number)
