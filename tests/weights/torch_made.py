"""Files as `torch.save` writes them, put together without PyTorch."""

import io
import pickle
import struct
import zipfile

import numpy as np

from byol_flax.weights import new_folder, torch_export
from tests.weights import made
from tests.weights.opcodes import STOP, call, line, text

STORAGES = {
  "float32": "FloatStorage",
  "float16": "HalfStorage",
  "bfloat16": "BFloat16Storage",
  "float64": "DoubleStorage",
  "int64": "LongStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}


class Opcodes(bytes):
  """What stands in the pickle as it is."""


class Tensor:
  """A tensor of a storage; by default it is a whole one of its own."""

  def __init__(self, array, *, shape=None, strides=None, offset=0, size=None):
    self.array = np.asarray(array)
    self.shape = self.array.shape if shape is None else shape
    steps = np.cumprod((1, *self.shape[:0:-1]))[::-1]
    self.strides = tuple(map(int, steps)) if strides is None else strides
    self.strides = self.strides[: len(self.shape)]
    self.offset = offset
    self.size = self.array.size if size is None else size  # announced


class _Pickle:
  """Turns values into opcodes, and collects the storages."""

  def __init__(self, row):
    self.row = row  # whether storages have a place for a view
    self.storages = []

  def of(self, value):
    match value:
      case Opcodes():
        return bytes(value)
      case Tensor():
        return self.tensor(value)
      case dict():
        items = b"".join(self.of(k) + self.of(v) for k, v in value.items())
        return call(line("collections", "OrderedDict")) + b"(" + items + b"u"
      case list():
        return b"](" + b"".join(map(self.of, value)) + b"e"
      case tuple():
        return b"(" + b"".join(map(self.of, value)) + b"t"
      case str():
        return text(value)
      case _:
        return pickle.dumps(value, 2)[2:-1]

  def tensor(self, tensor):
    kind = Opcodes(line("torch", STORAGES[tensor.array.dtype.name]))
    key = str(len(self.storages))
    self.storages.append(tensor.array)
    identity = ("storage", kind, key, "cpu", tensor.size)
    identity += (None,) if self.row else ()
    return call(
      line("torch._utils", "_rebuild_tensor_v2"),
      self.of(identity) + b"Q",
      *map(self.of, (tensor.offset, tensor.shape, tensor.strides, False, {})),
    )


def entries(content, name="archive"):
  """(name, bytes) of the zip archive's entries."""
  pickled = _Pickle(row=False)
  program = b"\x80\x02" + pickled.of(content) + STOP
  yield f"{name}/data.pkl", program
  yield f"{name}/byteorder", b"little"
  for i, array in enumerate(pickled.storages):
    yield f"{name}/data/{i}", array.tobytes()
  yield f"{name}/version", b"3\n"


def archive(content):
  """The bytes of a file as PyTorch has written them since 1.6."""
  return zipped(entries(content))


def zipped(named, **options):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", **options) as made_file:
    for name, data in named:
      made_file.writestr(name, data)
  return file.getvalue()


def row(content, *, machine=MACHINE, sizes=None):
  """The bytes of a file as PyTorch wrote them before."""
  pickled = _Pickle(row=True)
  program = b"\x80\x02" + pickled.of(content) + STOP
  keys = [str(i) for i in range(len(pickled.storages))]
  parts = [pickle.dumps(x, 2) for x in (MAGIC, 1001, machine)]
  parts += [program, pickle.dumps(keys, 2)]
  for i, array in enumerate(pickled.storages):
    size = array.size if sizes is None else sizes[i]
    parts += [struct.pack("<q", size), array.tobytes()]
  return b"".join(parts)


WRITERS = {"zip": archive, "row": row}

# The smallest network with all kinds of modules.
MODEL = made.model_with(
  architecture="bottleneck:2-1:8-12:4",
  stem="imagenet",
  shortcut="identity",
  padding="symmetric",
)


def encoder_weights(model=MODEL):
  """Weights of an encoder, of a file that tells nothing else."""
  return made.weights(model, modules=["encoder"])


def state_dict(naming="torchvision", model=MODEL):
  """Name -> array, as a PyTorch network with these weights has it."""
  return torch_export.encoder_arrays(encoder_weights(model), naming)


def tensors(named, prefix=""):
  return {prefix + name: Tensor(array) for name, array in named.items()}


def exported(write, weights, folder, **given):
  """Lets `write` fill `folder`, as a command does."""
  with new_folder.written(str(folder), {"format": "made"}) as new:
    write(weights, new, **given)
