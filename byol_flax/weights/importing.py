"""Turns weights of another program into this project's file, with proof."""

import dataclasses
import os
from collections.abc import Callable

from byol_flax.weights import (
  new_folder,
  npz,
  opening,
  other_sides,
  proof,
)
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign
from input_pipeline.errors import UsageError


def run(where: str, out: str, tell: Callable[[str], None]) -> None:
  """Reads `where`, and writes `weights.npz` with all that it holds into `out`.

  Args:
    where: a weight file or its folder, an absolute path.
    out: a new folder; one of an earlier import or export is replaced, once the
      new one is complete.
    tell: is given the lines of the proof.

  Raises:
    UsageError: there is no such file, it is refused, the proof fails, or `out`
      holds something else.
  """
  file = opening.file_of(where)
  if file is None:
    raise UsageError(
      f"There is no weight file {where}; expected one, or a folder that holds "
      "one. A run's workdir needs no import: --encoder and --init take it."
    )
  new_folder.check(out, file)
  found = opening.open_weights(file)
  sha256 = opening.sha256(file)
  for line in describe(found, file, sha256):
    tell(line)
  try:
    compared = proof.show(found, other_sides.of_file(found, file), tell)
    whole = dataclasses.replace(
      found,
      details={
        **found.details,
        "imported_from": {
          "file": os.path.basename(file),
          "format": found.format,
          "sha256": sha256,
        },
      },
    )
    record = {
      **whole.details["imported_from"],
      "features": compared,
    }
    with new_folder.written(out, record, file) as new:
      path = os.path.join(new, npz.FILE)
      npz.write(path, whole)
      count = proof.check_equal(npz.leaves(npz.read(path)), npz.leaves(found))
      tell(f"arrays: {count:,} were read back, the same to the last bit")
  except WeightsError as error:
    raise WeightsError(f"{file}: {error}") from None
  tell(f"Written to {out}")


# Of the details: what was taken to be so because the file does not tell.
_NOTES = ("small_stem", "batch_norm_count")


def describe(found: Foreign, file: str, sha256: str) -> list[str]:
  """Lines about what was found in a file."""
  encoder = found.model["encoder"]
  kind = f"{encoder['architecture']}, width {encoder['width']:g}"
  parts = [
    f"{name} network ({', '.join(sorted(network['params']))})"
    for name, network in found.networks.items()
  ]
  if found.momentum is not None:
    parts.append("momentum")
  step = "" if found.step is None else f", after update {found.step:,}"
  account = found.account
  left_out = "; ".join(
    f"{name} ({why.rstrip('.')})" for name, why in account.ignored.items()
  )
  return [
    f"{file}: {found.format} file, SHA-256 {sha256}",
    f"network: {kind}, {encoder['stem']} stem, {encoder['padding']} padding, "
    f"{encoder['shortcut']} shortcuts, BatchNorm's epsilon "
    f"{found.model['batch_norm']['epsilon']:g}",
    f"images: {found.image_size} pixels, the middle {found.crop_ratio:g} of "
    f"the shorter side; pixels scaled as {found.model['input_scaling']}",
    f"holds: {', '.join(parts)}{step}",
    f"names: {account.matched:,} matched, none missing, none left over"
    + (f"; left out: {left_out}" if left_out else ""),
    *(f"note: {found.details[key]}" for key in _NOTES if key in found.details),
  ]
