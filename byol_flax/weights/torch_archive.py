"""The two kinds of file that `torch.save` has written, taken apart.

Since PyTorch 1.6 it is a zip archive: NAME/data.pkl is a pickle, and
NAME/data/KEY are the bytes of a storage, not compressed. Before, it was a row
of pickles (a magic number, a version, the machine, the content, the keys of the
storages) and then the storages, each after its size.
"""

import io
import pickle
from typing import Any, BinaryIO, Final

from byol_flax.weights import pickle_machine, stored_zip, torch_pickle
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_input import shown
from byol_flax.weights.torch_pickle import Storage

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001
# How a file of the older kind begins.
_ROW: Final = pickle.dumps(_MAGIC, protocol=2)
_OTHER_ORDER: Final = (
  "It was saved on a machine with another order of bytes; expected "
  "little-endian numbers."
)
_MOST_OF_PICKLE: Final = 64 << 20  # bytes


def is_one(path: str) -> bool:
  """Whether `torch.save` has written a file, as its beginning tells."""
  with open(path, "rb") as file:
    head = file.read(max(len(_ROW), stored_zip.LOCAL.size + 256))
    if head.startswith(_ROW):
      return True
    if (
      not head.startswith(stored_zip.BEGINNING)
      or len(head) < stored_zip.LOCAL.size
    ):
      return False
    _, length, _ = stored_zip.LOCAL.unpack_from(head)
    if head[stored_zip.LOCAL.size :][:length].endswith(b"/data.pkl"):
      return True
    try:
      return any(n.endswith("/data.pkl") for n in stored_zip.entries(file))
    except WeightsError:
      return False


def content(path: str) -> Any:
  """What a file holds: dicts, lists, values, and tensors as `arrays.Stored`.

  Raises:
    WeightsError: it is damaged, or needs code to be read.
  """
  with open(path, "rb") as file:
    if file.read(4) == stored_zip.BEGINNING:
      return _of_zip(path, file)
    file.seek(0)
    return _of_row(path, file)


def _of_zip(path: str, file: BinaryIO) -> Any:
  entries = stored_zip.entries(file)
  pickled = [n for n in entries if n.count("/") == 1]
  pickled = [n for n in pickled if n.endswith("/data.pkl")]
  if len(pickled) != 1:
    raise WeightsError(
      f"It has {len(pickled)} entries NAME/data.pkl; expected one."
    )
  folder = pickled[0].removesuffix("data.pkl")
  if f"{folder}constants.pkl" in entries:
    raise WeightsError(
      "It is a TorchScript archive, which holds a program; expected a state "
      "dict, as torch.save(model.state_dict(), FILE) writes it."
    )
  order = entries.get(f"{folder}byteorder")
  if order and stored_zip.content(file, order, 16) != b"little":
    raise WeightsError(_OTHER_ORDER)
  program = io.BytesIO(
    stored_zip.content(file, entries[pickled[0]], _MOST_OF_PICKLE)
  )

  def persistent(identity: Any) -> Storage:
    match identity:
      case ("storage", kind, str(key), _, int(size)) if size >= 0:
        dtype = torch_pickle.dtype_of(kind)
      case _:
        raise WeightsError("It refers to something that is no storage.")
    name = f"{folder}data/{key}"
    if name not in entries:
      raise WeightsError(f"It lacks the entry {shown(name)} with a storage.")
    if entries[name].size != size * dtype.itemsize:
      raise WeightsError(
        f"Its entry {shown(name)} has {entries[name].size:,} bytes; a "
        f"storage of {size:,} numbers of type {dtype} was announced."
      )
    return Storage(path, dtype, size, entries[name].begin)

  return pickle_machine.load(
    program, admitted=torch_pickle.admitted(), persistent=persistent
  )


def _of_row(path: str, file: BinaryIO) -> Any:
  storages: dict[str, Storage] = {}

  def persistent(identity: Any) -> Storage:
    match identity:
      case ("storage", kind, str(key), _, int(size), view) if size >= 0:
        dtype = torch_pickle.dtype_of(kind)
      case _:
        raise WeightsError("It refers to something that is no storage.")
    whole = storages.setdefault(key, Storage(path, dtype, size, None))
    if (whole.dtype, whole.size) != (dtype, size):
      raise WeightsError(f"It has two different storages {shown(key)}.")
    if view is not None:
      raise WeightsError(
        "It has storages that are parts of others, as old versions of PyTorch "
        "saved them; load it and save it again with a newer one."
      )
    return whole

  names = torch_pickle.admitted()
  if pickle_machine.load(file, admitted={}) != _MAGIC:
    raise WeightsError("It does not begin as files of torch.save do.")
  version = pickle_machine.load(file, admitted={})
  machine = pickle_machine.load(file, admitted={})
  if version != _VERSION or not isinstance(machine, dict):
    raise WeightsError("It is of another version of PyTorch's older format.")
  if machine.get("little_endian") is not True:
    raise WeightsError(_OTHER_ORDER)
  held = pickle_machine.load(file, admitted=names, persistent=persistent)
  keys = pickle_machine.load(file, admitted={})
  if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
    raise WeightsError("It has no list of its storages.")
  _locate(file, keys, storages)
  return held


def _locate(
  file: BinaryIO, keys: list[str], storages: dict[str, Storage]
) -> None:
  """Finds the storages, which follow in the order of their keys."""
  begin = file.tell()
  end = file.seek(0, io.SEEK_END)
  for key in keys:
    file.seek(begin)
    size = int.from_bytes(file.read(8), "little", signed=True)
    storage = storages.get(key)
    if storage is None or size != storage.size or storage.offset is not None:
      raise WeightsError(
        f"Its storage {shown(key)} has {size:,} numbers, which is not what was "
        "announced."
      )
    storage.offset = begin + 8
    begin = storage.offset + size * storage.dtype.itemsize
    if begin > end:
      raise WeightsError(
        f"It ends early: storage {shown(key)} needs {begin - end:,} bytes more."
      )
  if missing := [k for k, s in storages.items() if s.offset is None]:
    raise WeightsError(f"It lacks the storage {shown(missing[0])}.")
