"""The metrics of a run: JSONL, the record of truth, and TensorBoard."""

import json
import math
import textwrap
import time
from collections.abc import Mapping
from typing import Any, Literal, Self

import jax
import numpy as np
from etils import epath

from byol_flax.runs import buckets, line_writer, tensorboard_files
from input_pipeline import whole_files

Kind = Literal["update", "evaluation"]  # of lines of numbers


class MetricsLog:
  """Writes the metrics of one run into its workdir, from one process.

  Threads write the values to `metrics.jsonl` and to `tensorboard/`: to the
  former from time to time, see `LineWriter`, and before `flush` returns. The
  next call raises a thread's error. On processes that do not write, every
  method does nothing and no file is made.

  Args:
    workdir: folder of the run, local or gs://; created if absent.
    writes: whether this process writes, true on process 0 only.
    resume_step: completed updates of the restored checkpoint, 0 for a new run.
      Lines of later steps, left by an attempt that was cut off, are dropped
      from `metrics.jsonl`, because those steps are about to be run again;
      TensorBoard is told to show what follows in their place.

  Attributes:
    note: a sentence for the console, if there will be no TensorBoard files.
  """

  def __init__(self, workdir: str, *, writes: bool, resume_step: int):
    self._workdir = epath.Path(workdir)
    self._writes = writes
    self._resume_step = resume_step
    self.note = ""
    if writes:
      self._workdir.mkdir(parents=True, exist_ok=True)
      record = self._workdir / "metrics.jsonl"
      drop_after(record, resume_step)
      seconds = line_writer.seconds_between(workdir, buckets.mounts())
      self._record = line_writer.LineWriter(record, seconds)
      self._tensorboard, self.note = tensorboard_files.open_writer(
        self._workdir / "tensorboard", resume_step
      )

  def scalars(
    self, step: int, values: Mapping[str, float], *, kind: Kind
  ) -> None:
    """Adds one line of `values` at `step`; "wall_time" is Unix seconds.

    "kind" says where the values come from: from update number `step`, or from
    an evaluation after it. JSON has no NaN, so a value that is not finite is
    written as the string "nan", "inf" or "-inf".
    """
    if not self._writes:
      return
    numbers = {name: float(value) for name, value in values.items()}
    line: dict[str, float | str] = {
      "step": step,
      "wall_time": time.time(),
      "kind": kind,
    }
    for name, number in numbers.items():
      line[name] = number if math.isfinite(number) else str(number)
    self._record.write(json.dumps(line, allow_nan=False))
    self._tensorboard.write_scalars(step, numbers)

  def add_note(self, step: int, name: str, text: str) -> None:
    """Adds a line of kind "note" at `step`, and a text to TensorBoard.

    It holds `text` under `name`, beside what `scalars` writes into its lines.
    """
    if self._writes:
      line = {"step": step, "wall_time": time.time(), "kind": "note"}
      self._record.write(json.dumps({**line, name: text}))
      self.text(step, {name: text})

  def goodput(self, step: int, values: Mapping[str, float]) -> None:
    """Shows `values` in TensorBoard alone; `starts.jsonl` has them."""
    if self._writes:
      self._tensorboard.write_scalars(step, values)

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
      table = parameter_table(params)
      whole_files.write_text(self._workdir / "parameters.txt", table + "\n")
      # Indented, the table is code to Markdown and keeps its columns.
      markdown = textwrap.indent(table, "    ")
      if not self._resume_step:
        self.text(0, {"parameters": markdown})
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))

  def flush(self) -> None:
    """Returns when `metrics.jsonl` holds everything reported so far."""
    if self._writes:
      self._record.flush()

  def close(self) -> None:
    """Writes all that is left; a second call does nothing."""
    if self._writes:
      try:
        self._record.close()
      finally:
        self._tensorboard.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def parameter_table(params: Mapping[str, Any]) -> str:
  """One line for each array of nested `params`, and their sum."""
  leaves = jax.tree.leaves_with_path(params)
  rows = [
    (
      jax.tree_util.keystr(path, simple=True, separator="/"),
      str(leaf.shape),
      str(leaf.dtype),
      f"{math.prod(leaf.shape):,}",
    )
    for path, leaf in leaves
  ]
  rows = [("name", "shape", "type", "size"), *rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    "  ".join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    )
    for row in rows
  ]
  total = sum(math.prod(leaf.shape) for _, leaf in leaves)
  return "\n".join([*(line.rstrip() for line in lines), f"Total: {total:,}"])


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
    if _step_of(line) == step and kind_of(json.loads(line)) == "evaluation":
      return True
  return False


def last_evaluation(path: epath.Path, step: int) -> dict[str, float]:
  """Metrics of the last evaluation up to update `step`; {} if there is none."""
  found: dict[str, float] = {}
  if not path.exists():
    return found
  for text in path.read_bytes().splitlines():
    if _step_of(text) > step:  # torn lines too
      continue
    line = json.loads(text)
    if kind_of(line) == "evaluation":
      found = {name: value for name, value in line.items() if "/" in name}
  return found


def kind_of(line: Mapping[str, Any]) -> str:
  """What a line of `metrics.jsonl` is: "update", "evaluation" or "note".

  Lines of older versions do not say so. They come from pre-training, where only
  an update has metrics that begin with "train/" or "time/".
  """
  of_updates = any(name.startswith(("train/", "time/")) for name in line)
  return line.get("kind", "update" if of_updates else "evaluation")


def _step_of(line: bytes) -> float:
  """The "step" of one line of JSONL; infinite when the line is torn."""
  try:
    return json.loads(line)["step"]
  except (ValueError, TypeError, KeyError):
    return math.inf


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
