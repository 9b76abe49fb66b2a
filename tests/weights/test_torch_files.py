"""Files of torch.save are read without PyTorch, and execute nothing."""

import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.weights import torch_files
from byol_flax.weights.errors import WeightsError
from tests.weights import torch_made
from tests.weights.opcodes import call, line
from tests.weights.torch_made import Opcodes, Tensor

ROWS = np.arange(12, dtype=np.float32)


@pytest.fixture(params=torch_made.WRITERS)
def write(request, tmp_path):
  """Writes a file of either format, and returns its path."""

  def written(content):
    path = tmp_path / "file.pth"
    path.write_bytes(torch_made.WRITERS[request.param](content))
    return str(path)

  return written


def read(path):
  assert torch_files.is_one(path)
  return torch_files.read(path)


def put(tmp_path, data):
  path = tmp_path / "file.pth"
  path.write_bytes(data)
  return str(path)


@pytest.mark.parametrize("dtype", torch_made.STORAGES)
def test_arrays_of_all_types_are_read(write, dtype):
  array = np.arange(6).reshape(2, 3)
  array = array.astype(jnp.bfloat16 if dtype == "bfloat16" else dtype)
  (stored,) = read(write({"a": Tensor(array)})).arrays.values()
  assert (stored.shape, stored.dtype) == (array.shape, array.dtype)
  found = stored.load()
  assert found.dtype == array.dtype
  np.testing.assert_array_equal(found, array)


def test_views_are_read_in_their_own_order(write):
  rows = ROWS.reshape(3, 4)
  content = {
    "columns": Tensor(ROWS, shape=(4, 3), strides=(1, 4)),
    "part": Tensor(ROWS, shape=(2, 2), strides=(4, 2), offset=5),
    "scalar": Tensor(ROWS, shape=(), strides=(), offset=7),
    "nothing": Tensor(ROWS, shape=(0, 3), strides=(3, 1), offset=12),
  }
  found = {k: v.load() for k, v in read(write(content)).arrays.items()}
  np.testing.assert_array_equal(found["columns"], rows.T)
  np.testing.assert_array_equal(found["part"], [[5, 7], [9, 11]])
  assert found["scalar"] == 7
  assert found["nothing"].shape == (0, 3)
  assert all(array.flags.c_contiguous for array in found.values())


def test_nested_names_are_joined_and_the_rest_is_told(write):
  tensor = Tensor(np.ones(2, np.float32))
  settings = call(line("argparse", "Namespace")) + b"}" + b"b"
  content = {
    "model": {"a": {"b": tensor}},
    "optimizer": [{"state": {0: tensor}}],
    "epoch": 7,
    "args": Opcodes(settings),
  }
  found = read(write(content))
  assert list(found.arrays) == ["model.a.b", "optimizer.0.state.0"]
  assert found.others["epoch"] == "It holds no arrays (int)."
  assert "argparse.Namespace, which was not made" in found.others["args"]


CODE = {
  "a class of its own": Opcodes(call(line("__main__", "Net"))),
  "a module of torch": Opcodes(line("torchvision.models.resnet", "ResNet")),
  "os.system": Opcodes(call(line("os", "system"), b"X\x02\0\0\0id")),
  "posix.system by INST": Opcodes(b"(X\x02\0\0\0id" + b"iposix\nsystem\n"),
  "builtins.eval": Opcodes(call(line("builtins", "eval"), b"X\x01\0\0\x001")),
  "torch.load": Opcodes(line("torch.serialization", "load")),
}


@pytest.mark.parametrize("asked", CODE.values(), ids=CODE)
def test_what_needs_code_is_refused_by_name(write, asked):
  path = write({"a": Tensor(ROWS), "b": asked})
  with pytest.raises(WeightsError, match=r"It asks for [\w.]+"):
    torch_files.read(path)


BAD_TENSORS = {
  "beyond its storage": (Tensor(ROWS, offset=1), "needs 12 elements"),
  "repeats": (Tensor(ROWS, shape=(4, 9), strides=(0, 1)), "repeats"),
  "negative": (Tensor(ROWS, shape=(12,), strides=(-1,)), "no list of sizes"),
  "offset": (Tensor(ROWS, shape=(1,), strides=(1,), offset=-1), "no list of"),
  "strides": (Tensor(ROWS, shape=(12,), strides=()), "no list of sizes"),
  "huge": (Tensor(ROWS, shape=(2**60,) * 3), "needs"),
  "size": (Tensor(ROWS, size=13), "announced"),
  "size below 0": (Tensor(ROWS, shape=(0,), size=-1), "no storage"),
}


@pytest.mark.parametrize(
  ("tensor", "said"), BAD_TENSORS.values(), ids=BAD_TENSORS
)
def test_tensors_that_lie_are_refused(tmp_path, tensor, said):
  path = put(tmp_path, torch_made.archive({"a": tensor}))
  with pytest.raises(WeightsError, match=said):
    torch_files.read(path)


CONTENT = {"a": Tensor(ROWS)}
ENTRIES = dict(torch_made.entries(CONTENT))


def with_entries(**changed):
  names = {"order": "archive/byteorder", "data": "archive/data/0"}
  return {**ENTRIES, **{names[k]: v for k, v in changed.items()}}.items()


BAD_ARCHIVES = {
  "another order": (with_entries(order=b"big"), "another order of bytes"),
  "too short": (with_entries(data=b"\0" * 44), "has 44 bytes"),
  "missing": (list(ENTRIES.items())[:2], r"lacks the entry archive/data/0"),
  "two pickles": ({**ENTRIES, "b/data.pkl": b"."}.items(), "2 entries"),
  "up": ({**ENTRIES, "archive/../../x": b""}.items(), "leads out"),
  "root": ({**ENTRIES, "/etc/x": b""}.items(), "leads out"),
  "backslash": ({**ENTRIES, "archive\\..\\x": b""}.items(), "leads out"),
  "program": ({**ENTRIES, "archive/constants.pkl": b""}.items(), "TorchScript"),
}


@pytest.mark.parametrize(
  ("named", "said"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES
)
def test_archives_that_lie_are_refused(tmp_path, named, said):
  path = put(tmp_path, torch_made.zipped(named))
  with pytest.raises(WeightsError, match=said):
    torch_files.read(path)


def test_compressed_and_double_entries_are_refused(tmp_path):
  bomb = {**ENTRIES, "archive/data/0": bytes(10**6)}.items()
  compressed = torch_made.zipped(bomb, compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(WeightsError, match="is compressed"):
    torch_files.read(put(tmp_path, compressed))
  with pytest.warns(UserWarning, match="Duplicate"):
    double = torch_made.zipped([*ENTRIES.items(), *ENTRIES.items()])
  with pytest.raises(WeightsError, match="two entries"):
    torch_files.read(put(tmp_path, double))


def test_sizes_of_an_entry_that_lie_are_refused(tmp_path):
  sound = torch_made.archive({"a": Tensor(np.zeros(2**12, np.float32))})
  true, lying = (
    struct.pack("<II", 2**14, 2**14),
    struct.pack("<II", 2**30, 2**30),
  )
  assert sound.count(true) == 2  # beside the entry, and in the directory
  with pytest.raises(WeightsError, match="data/0 is damaged"):
    torch_files.read(put(tmp_path, sound.replace(true, lying)))


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.9, 0.999])
def test_a_file_that_ends_early_is_told(write, kept):
  path = write({"a": Tensor(np.ones(400, np.float32))})
  with open(path, "rb+") as file:
    file.truncate(int(kept * len(file.read())))
  with pytest.raises(WeightsError, match=r"damaged zip|ends early|no end"):
    torch_files.read(path)


BAD_ROWS = {
  "another order": ({"machine": {"little_endian": False}}, "order of bytes"),
  "no machine": ({"machine": 3}, "another version"),
  "size": ({"sizes": [2**62]}, "not what was announced"),
}


@pytest.mark.parametrize(("options", "said"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_old_files_that_lie_are_refused(tmp_path, options, said):
  path = put(tmp_path, torch_made.row(CONTENT, **options))
  with pytest.raises(WeightsError, match=said):
    torch_files.read(path)


def test_objects_without_end_are_bounded(tmp_path):
  # A list that holds itself, and one that doubles with each level.
  cyclic = Opcodes(b"]q\x00(h\x00h\x00h\x00h\x00e")
  path = put(tmp_path, torch_made.archive({"a": cyclic}))
  with pytest.raises(WeightsError, match="more than 100,000 objects"):
    torch_files.read(path)


def test_names_that_grow_with_each_level_are_refused(tmp_path):
  content = {"a": Tensor(ROWS)}
  for _ in range(6):
    content = {"x" * 100: content}
  path = put(tmp_path, torch_made.archive(content))
  with pytest.raises(WeightsError, match="no plain text of at most 500"):
    torch_files.read(path)


def test_other_files_are_none_of_torch(tmp_path):
  for data in (b"", b"PK\x03\x04", b"\x80\x02}q\x00.", torch_made.zipped([])):
    assert not torch_files.is_one(put(tmp_path, data))


def test_what_is_no_dict_is_told(write):
  with pytest.raises(WeightsError, match="It holds list; expected a dict"):
    torch_files.read(write([Tensor(ROWS)]))
