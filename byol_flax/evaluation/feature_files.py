"""Writes features of any number of images into one file, piece after piece.

Neither writer ever holds more than one piece of the representations: those of
ImageNet are 10 GB.

.parquet: columns "id" (string), "label" (int32, null without), "class" (string,
null without) and "representation" (fixed-size list of F float32); the metadata
of the file has a JSON object under "byol".

.npz: arrays "representation" (float32 [N, F]), "label" (int32 [N], -1 without),
"id" (fixed-width unicode [N]) and "metadata" (unicode [], the same JSON);
`np.load` reads it without pickles.
"""

import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
from etils import epath
from pyarrow import parquet

from byol_flax.evaluation import image_ids
from byol_flax.runs import out_files
from input_pipeline import whole_files
from input_pipeline.errors import UsageError

_KEY = "byol"
_IDS_AT_ONCE = 8192


class Pieces(Protocol):
  """Some arrays of N rows that are read piece after piece."""

  def read(self, name: str) -> Iterator[np.ndarray]:
    """Yields the pieces of one array, in order; each call begins anew.

    They are "number", int64 [n], the images' numbers in their split; "label",
    int32 [n], -1 without label; "representation", float32 [n, F].
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """What a file of features holds.

  Attributes:
    pieces: the rows.
    count: N.
    width: F.
    piece_rows: how many rows a row group of Parquet has.
    ids: numbers of images in their split -> their ids.
    class_names: of the labels.
    metadata: a JSON object that says what was computed, and how.
  """

  pieces: Pieces
  count: int
  width: int
  piece_rows: int
  ids: Callable[[Iterable[int]], list[str]]
  class_names: Sequence[str]
  metadata: Mapping[str, Any]


def check(path: str) -> None:
  """Checks, before the work, that `write` can write to a path, local or gs://.

  Raises:
    UsageError: its ending tells no format, it cannot be written, or a file is
      there that `write` did not write.
  """
  check_ending(path)
  out_files.check_writable(path, lambda path: metadata_of(path) is not None)
  in_bucket = path.startswith("gs://") and epath.Path(path).exists()
  if in_bucket and not metadata_of(path):
    raise UsageError(
      f"Cannot write {path}: an object is there that was not written by byol. "
      "Move it away, or give another --out."
    )


def check_ending(path: str) -> None:
  """Raises UsageError unless the ending of the path tells a format."""
  if epath.Path(path).suffix not in _WRITERS:
    raise UsageError(
      f"--out={path} should end in one of {', '.join(_WRITERS)}, which tells "
      "the format of the features."
    )


def write(path: str, table: Table) -> None:
  """Writes a file, local or gs://, whole or not at all.

  The same table gives the same bytes, however its rows are cut into pieces.
  """
  with (
    whole_files.replacing(path) as temporary,
    temporary.open("wb") as file,
  ):
    _WRITERS[epath.Path(path).suffix](file, table)


def metadata_of(path: str) -> dict[str, Any] | None:
  """The JSON object in a file that `write` wrote; None of any other file."""
  try:
    with epath.Path(path).open("rb") as file:
      if epath.Path(path).suffix == ".npz":
        with np.load(file) as arrays:
          text = arrays["metadata"].item()
      else:
        text = parquet.read_metadata(file).metadata[_KEY.encode()]
    found = json.loads(text)
    return found if "code_version" in found else None
  # What others have written may be broken in any way.
  except Exception:
    return None


def _write_parquet(file: IO[bytes], table: Table) -> None:
  schema = pa.schema(
    [
      ("id", pa.string()),
      ("label", pa.int32()),
      ("class", pa.string()),
      ("representation", pa.list_(pa.float32(), table.width)),
    ],
    metadata={_KEY: json.dumps(table.metadata)},
  )
  pieces = (
    _cut_anew(table.pieces.read(name), table.piece_rows)
    for name in ("number", "label", "representation")
  )
  names = [image_ids.printable(name) for name in table.class_names]
  # Floats hardly ever repeat, so a dictionary of them would be a waste.
  with parquet.ParquetWriter(file, schema, use_dictionary=["class"]) as writer:
    for number, label, representation in zip(*pieces, strict=True):
      flat = pa.array(representation.reshape(-1))
      columns = [
        pa.array(table.ids(number)),
        pa.array(label, mask=label < 0),
        pa.array([names[k] if k >= 0 else None for k in label], pa.string()),
        pa.FixedSizeListArray.from_arrays(flat, table.width),
      ]
      writer.write_batch(pa.record_batch(columns, schema=schema))


def _cut_anew(pieces: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
  """The same rows in pieces of `rows` each, but for the last one."""
  held: list[np.ndarray] = []
  count = 0
  for piece in pieces:
    while count + len(piece) >= rows:
      head, piece = np.split(piece, [rows - count])
      yield np.concatenate([*held, head])
      held, count = [], 0
    held.append(piece)
    count += len(piece)
  if count:
    yield np.concatenate(held)


def _write_npz(file: IO[bytes], table: Table) -> None:
  def ids() -> Iterator[np.ndarray]:
    for numbers in _cut_anew(table.pieces.read("number"), _IDS_AT_ONCE):
      yield np.array(table.ids(numbers), np.str_)

  text = np.array(json.dumps(table.metadata))
  longest = max((one.dtype for one in ids()), key=lambda kind: kind.itemsize)
  count, read = table.count, table.pieces.read
  with zipfile.ZipFile(file, "w") as archive:
    for name, kind, shape, arrays in (
      (
        "representation",
        np.dtype(np.float32),
        (count, table.width),
        read("representation"),
      ),
      ("label", np.dtype(np.int32), (count,), read("label")),
      ("id", longest, (count,), ids()),
      ("metadata", text.dtype, (), iter([text])),
    ):
      # Without a date, so that equal features are equal files.
      member = zipfile.ZipInfo(f"{name}.npy")
      with archive.open(member, "w", force_zip64=True) as out:
        _write_array(out, kind, shape, arrays)


def _write_array(
  out: IO[bytes],
  kind: np.dtype,
  shape: tuple[int, ...],
  pieces: Iterator[np.ndarray],
) -> None:
  """Writes an .npy file, whose rows come in pieces."""
  np.lib.format.write_array_header_1_0(
    out,
    {
      "descr": np.lib.format.dtype_to_descr(kind),
      "fortran_order": False,
      "shape": shape,
    },
  )
  for piece in pieces:
    out.write(piece.astype(kind, copy=False).tobytes())


_WRITERS: dict[str, Callable[[IO[bytes], Table], None]] = {
  ".parquet": _write_parquet,
  ".npz": _write_npz,
}
