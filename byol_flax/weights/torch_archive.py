"""The two kinds of file that `torch.save` has written, taken apart.

Since PyTorch 1.6 it is a zip archive: NAME/data.pkl is a pickle, and
NAME/data/KEY are the bytes of a storage, not compressed. Before, it was a row
of pickles (a magic number, a version, the machine, the content, the keys of the
storages) and then the storages, each after its size.
"""

import io
import os
import pickle
import posixpath
import struct
import zipfile
from typing import Any, BinaryIO, Final

from byol_flax.weights import pickle_machine, torch_pickle
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_input import shown
from byol_flax.weights.torch_pickle import Storage

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001
# How a file of the older kind begins.
_ROW: Final = pickle.dumps(_MAGIC, protocol=2)
_ZIP: Final = b"PK\x03\x04"
_LOCAL: Final = struct.Struct(
  "<4s22xHH"
)  # signature, lengths of name and extra
_OTHER_ORDER: Final = (
  "It was saved on a machine with another order of bytes; expected "
  "little-endian numbers."
)
_MOST_OF_PICKLE: Final = 64 << 20  # bytes


def is_one(path: str) -> bool:
  """Whether `torch.save` has written a file, as its beginning tells."""
  with open(path, "rb") as file:
    head = file.read(max(len(_ROW), _LOCAL.size + 256))
    if head.startswith(_ROW):
      return True
    if not head.startswith(_ZIP) or len(head) < _LOCAL.size:
      return False
    _, length, _ = _LOCAL.unpack_from(head)
    if head[_LOCAL.size :][:length].endswith(b"/data.pkl"):
      return True
    try:
      with zipfile.ZipFile(file) as archive:
        return any(n.endswith("/data.pkl") for n in archive.namelist())
    except _DAMAGE:
      return False


def content(path: str) -> Any:
  """What a file holds: dicts, lists, values, and tensors as `arrays.Stored`.

  Raises:
    WeightsError: it is damaged, or needs code to be read.
  """
  with open(path, "rb") as file:
    if file.read(4) == _ZIP:
      return _of_zip(path, file)
    file.seek(0)
    return _of_row(path, file)


# What the zipfile module raises on a damaged archive.
_DAMAGE: Final = (
  zipfile.BadZipFile,
  NotImplementedError,
  RuntimeError,
  ValueError,
  EOFError,
  OverflowError,
  struct.error,
)


def _of_zip(path: str, file: BinaryIO) -> Any:
  try:
    with zipfile.ZipFile(file) as archive:
      entries = _entries(archive.infolist(), os.path.getsize(path))
      pickled = [n for n in entries if n.count("/") == 1]
      pickled = [n for n in pickled if n.endswith("/data.pkl")]
      if len(pickled) != 1:
        raise WeightsError(
          f"It has {len(pickled)} entries NAME/data.pkl; expected one."
        )
      folder = pickled[0].removesuffix("data.pkl")
      if f"{folder}constants.pkl" in entries:
        raise WeightsError(
          "It is a TorchScript archive, which holds a program; expected a "
          "state dict, as torch.save(model.state_dict(), FILE) writes it."
        )
  except WeightsError:
    raise
  except _DAMAGE as error:
    raise WeightsError(f"It is a damaged zip archive ({error}).") from None
  order = entries.get(f"{folder}byteorder")
  if order and _bytes(file, order) != b"little":
    raise WeightsError(_OTHER_ORDER)
  program = io.BytesIO(_bytes(file, entries[pickled[0]]))

  def persistent(identity: Any) -> Storage:
    match identity:
      case ("storage", kind, str(key), _, int(size)) if size >= 0:
        dtype = torch_pickle.dtype_of(kind)
      case _:
        raise WeightsError("It refers to something that is no storage.")
    name = f"{folder}data/{key}"
    if name not in entries:
      raise WeightsError(f"It lacks the entry {shown(name)} with a storage.")
    if entries[name].file_size != size * dtype.itemsize:
      raise WeightsError(
        f"Its entry {shown(name)} has {entries[name].file_size:,} bytes; a "
        f"storage of {size:,} numbers of type {dtype} was announced."
      )
    return Storage(path, dtype, size, _beginning(file, entries[name]))

  return pickle_machine.load(
    program, admitted=torch_pickle.admitted(), persistent=persistent
  )


def _entries(
  infos: list[zipfile.ZipInfo], size: int
) -> dict[str, zipfile.ZipInfo]:
  """The entries of an archive of `size` bytes by name, all harmless."""
  entries: dict[str, zipfile.ZipInfo] = {}
  for info in infos:
    name = info.orig_filename
    if name.startswith("/") or "\\" in name or posixpath.normpath(name) != name:
      raise WeightsError(
        f"It has an entry {shown(name)!r}, whose name leads out of the archive."
      )
    if name in entries:
      raise WeightsError(f"It has two entries {shown(name)}.")
    # So that no entry is larger than the file itself.
    if info.compress_type != zipfile.ZIP_STORED or (
      info.file_size != info.compress_size
    ):
      raise WeightsError(
        f"Its entry {shown(name)} is compressed; torch.save does not do that."
      )
    if not 0 <= info.header_offset < size:
      raise WeightsError(f"Its entry {shown(name)} begins outside of the file.")
    entries[name] = info
  return entries


def _bytes(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
  """A short entry. Its CRC is not looked at, as PyTorch may leave it out."""
  if info.file_size > _MOST_OF_PICKLE:
    raise WeightsError(
      f"Its {shown(info.filename)} has {info.file_size:,} bytes; expected at "
      f"most {_MOST_OF_PICKLE:,}."
    )
  file.seek(_beginning(file, info))
  return file.read(info.file_size)


def _beginning(file: BinaryIO, info: zipfile.ZipInfo) -> int:
  """Where the bytes of an entry begin, which its own header tells."""
  file.seek(info.header_offset)
  header = file.read(_LOCAL.size)
  if len(header) == _LOCAL.size and header.startswith(_ZIP):
    _, name, extra = _LOCAL.unpack(header)
    begin = info.header_offset + _LOCAL.size + name + extra
    if begin + info.file_size <= file.seek(0, io.SEEK_END):
      return begin
  raise WeightsError(f"Its entry {shown(info.filename)} is damaged.")


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
