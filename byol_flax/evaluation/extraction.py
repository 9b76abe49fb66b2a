"""Computes the features of a split and writes them into one file.

It goes on where it stopped, after a preemption or a kill, and several processes
may compute; process 0 alone reads and writes files.
"""

import contextlib
import functools
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from byol_flax import sharding
from byol_flax.evaluation import (
  feature_files,
  feature_parts,
  features,
  image_ids,
  place,
  unread,
)
from byol_flax.evaluation.protocol import Setting
from byol_flax.runs.version import code_version
from byol_flax.runs.workdir import differences
from input_pipeline import full_disk, sources
from input_pipeline.errors import PreemptedError, UsageError


def run(setting: Setting, source: sources.Source, out: str) -> None:
  """Writes the features of all images of `source` that can be read to `out`.

  Args:
    setting: the encoder, how to read, and where to compute.
    source: a split, with or without labels.
    out: a .parquet or .npz file; parts lie in a folder beside it meanwhile.

  Raises:
    UsageError: `out` cannot be written, the folder of parts holds others, or no
      image can be read.
    RunError: a feature is not finite, or a part is damaged.
    PreemptedError: the same call goes on.
  """
  leads = jax.process_index() == 0
  width = setting.encoder.representation.shape[1]
  with contextlib.ExitStack() as stack:
    parts, done = None, False
    if leads:
      feature_files.check(out)
      identity = _identity(setting, source)
      rows = feature_parts.rows_of(width)
      parts = stack.enter_context(
        feature_parts.opened(f"{out}.parts", rows, identity)
      )
      done = _is_of(out, identity)
    if setting.processes.any(done):
      setting.tell(f"{out} holds these features already; nothing to do.")
    else:
      if parts:
        _check_room(out, len(source), parts.stop, 4 * width)
      _compute(setting, source, parts)
      if parts:
        _write(setting, source, parts, out, identity)
    if parts:
      parts.remove()
    setting.processes.wait("features written")


def _identity(setting: Setting, source: sources.Source) -> dict[str, Any]:
  """What makes features differ, as a JSON object."""
  encoder = setting.encoder
  identity = {
    "encoder": encoder.provenance,
    "crop": {"size": encoder.crop.size, "ratio": encoder.crop.ratio},
    "data": {
      "name": source.name,
      "split": source.split,
      "images": len(source),
      "fingerprint": source.fingerprint,
    },
    "batch_size": setting.config.batch_size,
  }
  if not encoder.has_averages:
    identity["calibrated_on_batches_of"] = setting.config.batch_size
  found: dict[str, Any] = json.loads(json.dumps(identity))
  return found


def _is_of(out: str, identity: Mapping[str, Any]) -> bool:
  """Whether the file holds the features of this identity."""
  found = feature_files.metadata_of(out)
  if not found:
    return False
  before = {name: found.get(name) for name in identity}
  before = place.completed(before, identity)
  return not differences(before, identity, feature_parts.MAY_CHANGE)


def _check_room(out: str, count: int, done: int, row_bytes: int) -> None:
  """Raises OSError unless the missing parts and the file fit on the disk."""
  folder = str(epath.Path(out).parent)
  full_disk.check_room(folder, (2 * count - done) * row_bytes)


def _compute(
  setting: Setting, source: sources.Source, parts: feature_parts.Parts | None
) -> None:
  """Computes the parts that are missing."""
  start = setting.processes.of_first(parts.stop if parts else 0)
  if start == len(source):
    return
  if start:
    setting.tell(f"going on after image {start:,} of {len(source):,}")
  rest = sources.Part(source, source.split, range(start, len(source)))
  reader = setting.make_reader()
  setting.tell(f"input: {reader.describe(rest)}")
  encoder = features.calibrate(
    setting.encoder,
    source,
    reader,
    setting.mesh,
    batch_size=setting.config.batch_size,
  )
  part_done = setting.progress(reader.count_batches(rest), reader.batch_size)
  with features.open_splits([rest], reader, part_done) as (batches,):
    try:
      for found in features.of_batches(
        features.make_feature_fn(encoder, setting.mesh),
        encoder.variables,
        batches,
        setting.mesh,
      ):
        rows = jax.device_get(sharding.gather(setting.mesh, found))
        if parts:
          parts.add(rows, len(source))
    except PreemptedError:
      if parts:
        parts.flush()
      raise
  if parts:
    parts.flush()


def _write(
  setting: Setting,
  source: sources.Source,
  parts: feature_parts.Parts,
  out: str,
  identity: Mapping[str, Any],
) -> None:
  """Puts the parts together."""
  absent = np.ones(len(source), bool)
  for numbers in parts.read("number"):
    absent[numbers] = False
  left_out = np.flatnonzero(absent)
  read = len(source) - len(left_out)
  if not read:
    parts.remove()
    raise UsageError(
      f"None of the {len(source):,} images of {source.name} ({source.split}) "
      f"can be read, such as {source.example_name(0)}."
    )
  width = setting.encoder.representation.shape[1]
  feature_files.write(
    out,
    feature_files.Table(
      pieces=parts,
      count=read,
      width=width,
      piece_rows=parts.rows,
      ids=functools.partial(image_ids.of_images, source),
      class_names=source.class_names,
      metadata={
        **identity,
        "unreadable_images": len(left_out),
        "class_names": list(map(image_ids.printable, source.class_names)),
        "code_version": code_version(),
      },
    ),
  )
  if len(left_out):
    setting.tell(
      f"{len(left_out):,} image(s) could not be read and are left out: "
      f"{unread.named(source, left_out.tolist())}"
    )
  setting.tell(f"Written to {out}: {read:,} rows of {width:,} features")
