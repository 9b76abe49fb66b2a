"""Compiles in a process of its own.

A compilation takes minutes, in which it must tell how far it is and end at once
on Ctrl-C. Moreover, some steps make the compiler crash and print pages of
addresses.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

from byol_flax.slices import Slice
from input_pipeline import parents
from input_pipeline.errors import RunError, UsageError

_SECONDS_BETWEEN_NOTES = 15
_SECONDS_TO_END = 5

_Answer = TypeVar("_Answer")


def compile_apart(
  function: Callable[..., _Answer],
  config: Any,
  slice_: Slice,
  *,
  stream: TextIO,
  **data: Any,
) -> _Answer:
  """Returns `function(config, slice_, **data, tell=...)`, run in a child.

  Args:
    function: such as `compiler.compile_step`.
    config: its first argument.
    slice_: where the programs would run.
    stream: is given a line now and then while the compilation takes long.
    **data: further arguments.

  Raises:
    UsageError: the config does not suit the slice.
    RunError: the compiler failed or crashed.
  """
  context = multiprocessing.get_context("spawn")
  ours, theirs = context.Pipe(duplex=False)
  with tempfile.TemporaryFile() as complaints:
    child = context.Process(
      target=_compile,
      # A file without a name, so that no signal can leave one behind.
      args=(theirs, f"/proc/{os.getpid()}/fd/{complaints.fileno()}", function),
      kwargs={"config": config, "slice_": slice_, **data},
      daemon=True,
    )
    with parents.born_deaf(signal.SIGINT):
      child.start()
    theirs.close()
    try:
      answer = _await(ours, stream)
      child.join(_SECONDS_TO_END)  # so that it ends with its own exit code
    finally:
      child.kill()
      child.join()
      ours.close()
    if answer is None:
      raise RunError(_crash(child.exitcode, slice_, complaints.read()))
  if isinstance(answer, Exception):
    raise answer
  return answer


def _compile(
  pipe: multiprocessing.connection.Connection,
  complaints: str,
  function: Callable[..., Any],
  **arguments: Any,
) -> None:
  """In the child: sends the phases it goes through, then the result."""
  with open(complaints, "ab") as file:
    os.dup2(file.fileno(), 2)
  parents.end_with_parent()
  try:
    pipe.send(function(**arguments, tell=pipe.send))
  except (UsageError, RunError) as error:
    pipe.send(error)
  except Exception as error:
    reason = (str(error).splitlines() or [""])[0][:300]
    name = type(error).__name__
    pipe.send(
      RunError(
        f"Preflight itself failed ({name}: {reason}). Please report this."
      )
    )


def _await(pipe: multiprocessing.connection.Connection, stream: TextIO) -> Any:
  """The child's result or error; None if it ends without one."""
  phase, begun = "starting", time.monotonic()
  while True:
    while not pipe.poll(_SECONDS_BETWEEN_NOTES):
      stream.write(f"{phase}, {time.monotonic() - begun:.0f} s\n")
      stream.flush()
    try:
      message = pipe.recv()
    except EOFError:
      return None
    if not isinstance(message, str):
      return message
    phase, begun = message, time.monotonic()


def _crash(code: int | None, slice_: Slice, complaints: bytes) -> str:
  lines = complaints.decode(errors="replace").splitlines()
  # The compiler's signal handler names the signal in a line of stars.
  stars = [line.strip("* ") for line in lines if line.startswith("***")]
  reason = (stars or lines[-1:] or ["it said nothing"])[0][:200]
  other = "another slice or batch size may work."
  if slice_.generation == "v6e":
    other = 'another may work, see "v6e" in launch/README.md.'
  return (
    f"The TPU compiler ended with {code} while compiling for {slice_.name}: "
    f"{reason} That is a fault of the compiler, not of the config; {other}"
  )
