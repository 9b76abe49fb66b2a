"""This project's own weight file: one .npz with every array and a card.

It is what `byol import` makes of other formats, and NumPy reads it too. An
array's name is its path, such as online/params/encoder/stem_conv/kernel; it
begins with online/params, online/batch_stats, the same of target, or momentum.
The entry card.json says what no array tells, and where the weights came from.
"""

import io
import json
import math
import tokenize
import zipfile
from typing import Any, BinaryIO

import numpy as np

from byol_flax import bounds
from byol_flax.bounds import Bound, OneOf, Real, Whole
from byol_flax.runs.version import code_version
from byol_flax.weights import arrays, fitting, stored_zip, structure
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Account, Foreign

FORMAT = "byol"
FILE = "weights.npz"
_CARD = "card.json"
_VERSION = 1
_MOST_OF_CARD = 2**20  # bytes
_NETWORKS = ("online", "target")
_MOST_OF_HEADER = 2**16  # bytes
# What NumPy raises on headers, which it parses as Python's literals.
_NO_HEADER = (
  ValueError,
  TypeError,
  KeyError,
  EOFError,
  SyntaxError,
  RecursionError,
  MemoryError,
  tokenize.TokenError,
)
# What the card says of a network, and what that may be.
_SETTINGS: dict[str, Bound] = {
  "padding": OneOf("same", "symmetric"),
  "decay": Real(0, 1, below=True),
  "epsilon": Real(0, 1, above=True),
  "input_scaling": OneOf("imagenet", "unit"),
  "image_size": Whole(1, 65_535),
  "crop_ratio": Real(0, 1, above=True),
}


def write(path: str, found: Foreign) -> None:
  """Writes all that was found, one array after another.

  Args:
    path: of the new file; a file that is there is written over.
    found: the weights.
  """
  card = {
    "version": _VERSION,
    "code_version": code_version(),
    "padding": found.model["encoder"]["padding"],
    **found.model["batch_norm"],
    "input_scaling": found.model["input_scaling"],
    "image_size": found.image_size,
    "crop_ratio": found.crop_ratio,
    "step": found.step,
    "details": dict(found.details),
  }
  with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
    file.writestr(_CARD, json.dumps(card, indent=2))
    for name, stored in leaves(found).items():
      with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, stored.load(), allow_pickle=False)


def leaves(found: Foreign) -> dict[str, arrays.Stored]:
  """Name -> array, of all that was found."""
  momentum = {"momentum": found.momentum} if found.momentum else {}
  return dict(arrays.flat({**found.networks, **momentum}))


def read(path: str) -> Foreign:
  """Finds what `write` has written.

  Raises:
    WeightsError: it is damaged, or another program's.
  """
  with open(path, "rb") as file:
    entries = stored_zip.entries(file)
    card = _card(file, entries.pop(_CARD, None))
    stored = {
      name.removesuffix(".npy"): _array(path, file, entry)
      for name, entry in entries.items()
    }
  tree = arrays.nested(stored)
  networks = {name: tree[name] for name in _NETWORKS if name in tree}
  if set(tree) - {*_NETWORKS, "momentum"} or "online" not in networks:
    raise WeightsError(
      f"It has arrays of {', '.join(sorted(tree)) or 'nothing'}; expected "
      "those of online, and perhaps of target and momentum."
    )
  for name, network in networks.items():
    if set(network) != {"params", "batch_stats"}:
      raise WeightsError(f"Its {name} has not just params and batch_stats.")
  model = structure.model_of(
    networks["online"]["params"],
    padding=card["padding"],
    decay=card["decay"],
    epsilon=card["epsilon"],
  )
  found = Foreign(
    format=FORMAT,
    networks=networks,
    momentum=tree.get("momentum"),
    step=card["step"],
    model={**model, "input_scaling": card["input_scaling"]},
    image_size=card["image_size"],
    crop_ratio=card["crop_ratio"],
    account=Account(matched=len(stored), ignored={}),
    details=card["details"],
  )
  fitting.check(found)
  return found


def _card(file: BinaryIO, entry: stored_zip.Entry | None) -> dict[str, Any]:
  """The entry that says what the arrays do not."""
  if entry is None:
    raise WeightsError(
      f"It has no {_CARD}, so it was not written by `byol`; other .npz files "
      "do not tell which network they belong to."
    )
  try:
    card = json.loads(stored_zip.content(file, entry, _MOST_OF_CARD))
    if card["version"] != _VERSION:
      raise ValueError("a newer version of byol wrote it")
    for name, bound in _SETTINGS.items():
      bounds.check(name, card[name], bound)
    if not isinstance(card["details"], dict):
      raise ValueError("its details are no object")
    _check_training(card["details"])
    if card["step"] is not None:
      bounds.check("step", card["step"], Whole(0))
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise WeightsError(f"Its {_CARD} cannot be read ({error}).") from None
  return dict(card)


def _check_training(details: dict[str, Any]) -> None:
  """Raises ValueError unless what reports tell of the training can be told."""
  if details.get("trained_by") not in (None, "byol", "labels", "variant"):
    raise ValueError("its trained_by is neither byol nor labels nor variant")
  match details.get("trained_on"):
    case None | {"name": str()}:
      return
  raise ValueError("its trained_on names no data set")


def _array(path: str, file: BinaryIO, entry: stored_zip.Entry) -> arrays.Stored:
  """An array of the file, of which only the header is read."""
  if not entry.name.endswith(".npy"):
    raise WeightsError(f"It has an entry {entry.name!r}, which is no array.")
  file.seek(entry.begin)
  head = io.BytesIO(file.read(min(entry.size, _MOST_OF_HEADER)))
  shape, dtype, begin = _header(head, entry.name)
  size = math.prod(shape) * dtype.itemsize
  if begin + size != entry.size or min(shape, default=0) < 0:
    raise WeightsError(
      f"Its entry {entry.name} has {entry.size:,} bytes; expected "
      f"{begin + size:,} of an array {list(shape)} of {dtype}."
    )

  def load() -> np.ndarray:
    array = np.empty(shape, dtype)
    memory = array.reshape(-1).view(np.uint8).data
    with open(path, "rb") as file:
      stored_zip.fill(memory, file, entry, skipped=begin)
    return array

  return arrays.Stored(shape, dtype, load)


def _header(
  entry: BinaryIO, name: str
) -> tuple[tuple[int, ...], np.dtype[Any], int]:
  """Shape and type of an array in NumPy's format, and where it begins."""
  read_header = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  try:
    version = np.lib.format.read_magic(entry)
    shape, in_columns, dtype = read_header[version](entry)
  except _NO_HEADER as error:
    raise WeightsError(f"Its entry {name} is no array ({error}).") from None
  if in_columns or dtype.kind not in "fiu" or not dtype.isnative:
    raise WeightsError(
      f"Its entry {name} holds {dtype}{' by columns' if in_columns else ''}; "
      "expected numbers by rows."
    )
  return shape, dtype, entry.tell()
