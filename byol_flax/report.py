"""What a run says: JSONL, TensorBoard and the line on the console.

`metrics.jsonl` is the record of truth; TensorBoard shows the same numbers to
people. This module is the one home of CLU's writers and of TensorBoard.
"""

import json
import math
import os
import shutil
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TextIO

import jax
import numpy as np
from etils import epath

from input_pipeline import full_disk, whole_files
from input_pipeline.errors import UsageError


class Report:
  """Writes the metrics of one run into its workdir, from one process.

  Values go to `metrics.jsonl` before a call returns and to `tensorboard/` from
  a background thread. An error in that thread is raised by the next call. On
  processes that do not write, every method does nothing and no file is made.

  Args:
    workdir: folder of the run, local or gs://; created if absent.
    writes: whether this process writes, true on process 0 only.
    resume_step: completed updates of the restored checkpoint, 0 for a new run.
      Lines of later steps, left by an attempt that was cut off, are dropped
      from `metrics.jsonl`, because those steps are about to be run again;
      TensorBoard is told to show what follows in their place.
  """

  def __init__(self, workdir: str, *, writes: bool, resume_step: int):
    self._workdir = epath.Path(workdir)
    self._writes = writes
    self._resume_step = resume_step
    if writes:
      self._workdir.mkdir(parents=True, exist_ok=True)
      drop_after(self._workdir / "metrics.jsonl", resume_step)
      self._tensorboard = _open_tensorboard(
        self._workdir / "tensorboard", resume_step
      )

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one line of `values` at `step`; "wall_time" is Unix seconds.

    JSON has no NaN, so a value that is not finite is written as the string
    "nan", "inf" or "-inf".
    """
    if not self._writes:
      return
    numbers = {name: float(value) for name, value in values.items()}
    line: dict[str, float | str] = {"step": step, "wall_time": time.time()}
    for name, number in numbers.items():
      line[name] = number if math.isfinite(number) else str(number)
    # Opened anew for every line: on gs:// only closing makes a line durable.
    with (self._workdir / "metrics.jsonl").open("a") as file:
      file.write(json.dumps(line, allow_nan=False) + "\n")
    self._tensorboard.write_scalars(step, numbers)

  def start(self, about: Mapping[str, Any]) -> None:
    """Appends a line to `starts.jsonl`: step, time and `about` this start."""
    if self._writes:
      line = {"step": self._resume_step, "wall_time": time.time(), **about}
      with (self._workdir / "starts.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")

  def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Shows `images`, name -> uint8 [N, H, W, 3], in TensorBoard."""
    if self._writes:
      self._tensorboard.write_images(step, images)

  def text(self, step: int, texts: Mapping[str, str]) -> None:
    """Shows `texts`, name -> Markdown, in TensorBoard."""
    if self._writes:
      self._tensorboard.write_texts(step, texts)

  def hyperparameters(self, config: Mapping[str, Any]) -> None:
    """Writes a nested `config` to `config.json` and, flattened, TensorBoard."""
    if self._writes:
      nested = json.dumps(config, indent=2)
      whole_files.write_text(self._workdir / "config.json", nested + "\n")
      if not self._resume_step:
        self._tensorboard.write_hparams(flatten(config))

  def parameter_overview(self, params: Mapping[str, Any]) -> int:
    """Writes the table of `params` to `parameters.txt` and TensorBoard.

    Args:
      params: nested mapping of arrays, or of their jax.ShapeDtypeStruct.

    Returns:
      How many numbers `params` holds, on every process.
    """
    if self._writes:
      from clu import parameter_overview

      # Without statistics: those would gather arrays from other processes.
      table = parameter_overview.get_parameter_overview(
        params, include_stats=False
      )
      whole_files.write_text(self._workdir / "parameters.txt", table + "\n")
      # Indented, the table is code to Markdown and keeps its columns.
      markdown = textwrap.indent(table, "    ")
      if not self._resume_step:
        self.text(0, {"parameters": markdown})
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))

  def flush(self) -> None:
    """Waits until TensorBoard's files hold everything reported so far."""
    if self._writes:
      self._tensorboard.flush()

  def close(self) -> None:
    """Flushes and closes TensorBoard's files; a second call does nothing."""
    if self._writes:
      self._tensorboard.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def _open_tensorboard(folder: epath.Path, resume_step: int) -> Any:
  """CLU's writer of event files, asynchronous and quiet.

  Hyperparameters, texts and images of the first start stay; so those that come
  with every start are written by the first one only.
  """
  # What TensorFlow says while it loads is of no use here: it computes nothing.
  # The notice about oneDNN ignores the log level, hence the second variable.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  # Imported here because TensorFlow takes seconds to load, and processes that
  # do not write can do without it.
  from clu import metric_writers

  _mark_start(folder, resume_step)
  writer = metric_writers.SummaryWriter(str(folder))
  return metric_writers.AsyncWriter(writer)


def _mark_start(folder: epath.Path, resume_step: int) -> None:
  """Tells TensorBoard which of the events before this start hold no more.

  A reader drops them when it meets a START event that is not the first of the
  run (`plugin_event_accumulator`). Runs of older versions have no first one, so
  each start leaves two. TensorBoard's data server in Rust needs none: there a
  step takes the place of equal and later ones of the same name.
  """
  from tensorboard.compat.proto import event_pb2
  from tensorboard.summary.writer import record_writer

  start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
  # What was made by the update that is resumed from stays.
  first_again = resume_step + 1 if resume_step else 0
  # Files are read in the order of their names; CLU's has a dot for the dash.
  name = f"{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}-start"
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / f"events.out.tfevents.{name}").open("wb") as file:
    records = record_writer.RecordWriter(file)
    for what in (
      {"file_version": "brain.Event:2"},
      *2 * [{"step": first_again, "session_log": start}],
    ):
      event = event_pb2.Event(wall_time=time.time(), **what)
      records.write(event.SerializeToString())


def drop_after(path: epath.Path, step: int) -> None:
  """Drops lines of later steps, and torn ones, from the JSONL file at `path`.

  A kill in the middle of a write leaves a torn line, one that is not a JSON
  object. The file is replaced as a whole or not at all; an absent one stays so.
  """
  if path.exists():
    lines = path.read_bytes().splitlines()
    kept = [line.decode() for line in lines if _step_of(line) <= step]
    whole_files.write_text(path, "".join(line + "\n" for line in kept))


def evaluated(path: epath.Path, step: int) -> bool:
  """Whether the JSONL file at `path` has an evaluation after update `step`."""
  if not path.exists():
    return False
  for line in path.read_bytes().splitlines():
    if _step_of(line) == step and "train/byol_loss" not in json.loads(line):
      return True
  return False


def _step_of(line: bytes) -> float:
  """The "step" of one line of JSONL; infinite when the line is torn."""
  try:
    return json.loads(line)["step"]
  except (ValueError, TypeError, KeyError):
    return math.inf


def check_writable(path: str) -> None:
  """Asks before the work whether `write_json` may write there; local paths.

  Only what `byol` wrote is written over: a JSON object with a "code_version".

  Raises:
    UsageError: it could not, or what is there is something else.
  """
  if path.startswith("gs://"):
    return
  folder = os.path.dirname(os.path.abspath(path))
  if os.path.isdir(path):
    reason = "it is a folder"
  elif not os.path.isdir(folder):
    reason = f"there is no folder {folder}"
  elif not os.access(folder, os.W_OK):
    reason = f"{folder} may not be written to"
  elif os.path.exists(path) and not _has_code_version(path):
    reason = (
      "that file is there and was not written by byol; move it away, or give "
      "another --out"
    )
  else:
    return
  raise UsageError(f"Cannot write {path}: {reason}.")


def _has_code_version(path: str) -> bool:
  try:
    with open(path, "rb") as file:
      return "code_version" in json.load(file)
  except (OSError, ValueError, TypeError):
    return False


def write_json(path: str, record: Mapping[str, Any]) -> None:
  """Writes a JSON file, local or gs://, whole or not at all.

  Raises:
    UsageError: it cannot be written there.
  """
  try:
    whole_files.write_text(
      path, json.dumps(record, indent=2, allow_nan=False) + "\n"
    )
  except OSError as error:
    if full_disk.problem(error):
      raise
    raise UsageError(
      f"Cannot write {path}: {error.strerror or error}."
    ) from None


def flatten(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
  """Dotted names to values; what TensorBoard cannot show becomes a string."""
  flat: dict[str, bool | int | float | str] = {}
  for name, value in config.items():
    if isinstance(value, Mapping):
      inner = flatten(value).items()
      flat |= {f"{name}.{inner_name}": leaf for inner_name, leaf in inner}
    else:
      shown = isinstance(value, bool | int | float | str)
      flat[name] = value if shown else str(value)
  return flat


class Progress:
  """The console line of a run.

  On a terminal one line is rewritten in place. Anywhere else, where that would
  fill a log, plain lines appear: the first, the last, and between them at most
  one every `every_seconds`.

  Args:
    total_steps: the step at which the run ends.
    batch_size: global, images per step.
    stream: where the line goes, standard error unless given.
    clock: seconds from any origin.
    every_seconds: shortest time between two plain lines.
  """

  def __init__(
    self,
    *,
    total_steps: int,
    batch_size: int,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    every_seconds: float = 30.0,
  ):
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._stream = sys.stderr if stream is None else stream
    self._clock = clock
    self._every_seconds = every_seconds
    self._in_place = self._stream.isatty()
    self._line = ""  # what stands on the terminal now
    self._noted: set[str] = set()
    self._next_time = -math.inf

  def update(
    self,
    step: int,
    *,
    loss: float,
    images_per_second: float,
    data_wait_fraction: float,
  ) -> None:
    """Shows that `step` updates are done; `data_wait_fraction` in [0, 1]."""
    remaining = (self._total_steps - step) * self._batch_size
    eta = remaining / images_per_second if images_per_second else math.nan
    digits = 0 if images_per_second >= 10 else 1
    line = " | ".join(
      (
        f"step {step:,}/{self._total_steps:,} "
        f"{100 * step // self._total_steps:>2}%",
        f"{images_per_second:,.{digits}f} images/s",
        f"ETA {human_duration(eta)}",
        f"loss {loss:.3f}",
        f"data wait {data_wait_fraction:.0%}",
      )
    )
    if self._in_place:
      self._redraw(line)
    elif step >= self._total_steps or self._clock() >= self._next_time:
      self._next_time = self._clock() + self._every_seconds
      self._write(line + "\n")

  def note(self, text: str) -> None:
    """Prints `text` on a line of its own, above the line in place."""
    self._write(self._over(text) + "\n")
    if self._line:
      self._write(self._line)

  def notes(self, texts: Iterable[str]) -> None:
    """`note` for each that is not empty."""
    for text in filter(None, texts):
      self.note(text)

  def note_once(self, topic: str, text: str) -> None:
    """`note`, unless something was noted under this topic before."""
    if topic not in self._noted:
      self._noted.add(topic)
      self.note(text)

  def close(self) -> None:
    """Ends the line in place, so that what follows starts on a new one."""
    if self._line:
      self._line = ""
      self._write("\n")

  def _redraw(self, line: str) -> None:
    """Puts `line` in place of the line shown."""
    # A line that wraps cannot be rewritten: `\r` goes back one row only.
    line = line[: shutil.get_terminal_size().columns - 1]
    self._write(self._over(line))
    self._line = line

  def _over(self, text: str) -> str:
    """`text`, made to cover the line shown, if there is one."""
    return ("\r" + text.ljust(len(self._line))) if self._in_place else text

  def _write(self, text: str) -> None:
    self._stream.write(text)
    self._stream.flush()


def human_duration(seconds: float) -> str:
  """Two units at most: "12s", "3m 40s", "5h 02m", "3d 04h"; "?" if unknown."""
  if not math.isfinite(seconds):
    return "?"
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  days, hour = divmod(hours, 24)
  if days:
    return f"{days}d {hour:02d}h"
  if hours:
    return f"{hours}h {minute:02d}m"
  if minutes:
    return f"{minutes}m {second:02d}s"
  return f"{second}s"
