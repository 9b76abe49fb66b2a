"""PyTorch's networks are read into our trees, or refused with a reason."""

import json
import os
import time

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from byol_flax.weights import (
  arrays,
  importing,
  safetensors_files,
  structure,
  torch_weights,
)
from byol_flax.weights.errors import WeightsError
from tests.weights import made, torch_made
from tests.weights.test_npz import assert_equal


@pytest.fixture(scope="module")
def named():
  """A whole state dict, by torchvision's names."""
  return torch_made.state_dict()


def saved(tmp_path, named, *, metadata=None, name="a.safetensors"):
  path = str(tmp_path / name)
  save_file(named, path, metadata=metadata)
  return path


def refused(path, said):
  """`path` is refused, with a sentence that says so."""
  with pytest.raises(WeightsError, match=said) as caught:
    arrays.read(torch_weights.read(path).encoder)
  assert str(caught.value)[0].isupper()


@pytest.mark.parametrize("kind", torch_made.WRITERS)
def test_files_of_torch_save_are_read(tmp_path, named, kind):
  content = {
    "state_dict": torch_made.tensors(named, "backbone."),
    "epoch": 3,
  }
  path = tmp_path / "a.ckpt"
  path.write_bytes(torch_made.WRITERS[kind](content))
  found = torch_weights.read(str(path))
  assert_equal(found, torch_made.encoder_weights())
  assert found.format == "torchvision"
  assert found.account.matched == len(named)
  assert found.account.ignored == {"epoch": "It holds no arrays (int)."}
  expected = structure.model_of(
    torch_made.encoder_weights().networks["online"]["params"],
    padding="symmetric",
    decay=0.9,
    epsilon=1e-5,
  )
  assert found.model == expected


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_other_types_become_float32(tmp_path, named, dtype):
  cast = {
    k: v if v.dtype == np.int64 else v.astype(dtype) for k, v in named.items()
  }
  found = torch_weights.read(saved(tmp_path, cast))
  kernel = found.encoder["params"]["stem_conv"]["kernel"]
  assert kernel.dtype == kernel.load().dtype == np.float32
  theirs = cast["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel.load(), theirs)
  assert found.details["types"] == [np.dtype(dtype).name]


@pytest.mark.parametrize("counted", ["absent", 0, 10**12])
def test_batches_that_were_not_counted_are_many(tmp_path, named, counted):
  counts = [name for name in named if name.endswith("tracked")]
  if counted == "absent":
    kept = {k: v for k, v in named.items() if k not in counts}
  else:
    kept = named | {name: np.array(counted) for name in counts}
  found = torch_weights.read(saved(tmp_path, kept))
  count = found.encoder["batch_stats"]["stem_norm"]["count"].load()
  assert (count, count.dtype, count.shape) == (1_000_000, np.int32, ())
  assert ("batch_norm_count" in found.details) == (counted == "absent")


def without(name):
  return lambda named: {k: v for k, v in named.items() if k != name}


def changed(name, change):
  return lambda named: named | {name: change(named[name])}


BAD = {
  "no kernel": (without("layer2.0.conv3.weight"), r"lacks layer2\.0\.conv3\.w"),
  "no kernels": (
    lambda named: {k: v for k, v in named.items() if ".conv3." not in k},
    r"lacks layer1\.0\.conv3\.weight, .* and 1 more|is missing|is left over",
  ),
  "no average": (
    without("layer1.0.bn2.running_var"),
    r"layer1\.0\.bn2\.running_var \[2\] is missing",
  ),
  "no shortcut": (
    without("layer2.0.downsample.0.weight"),
    r"layer2\.0\.downsample\.0\.weight .* is missing",
  ),
  "a gap": (
    lambda named: {k: v for k, v in named.items() if "layer1.0" not in k},
    "holds no ResNet",
  ),
  "too wide inside": (
    changed("layer1.0.conv2.weight", lambda x: np.tile(x, (2, 2, 1, 1))),
    r"layer1\.0\.conv2\.weight .*is \[3, 3, 4, 4\], expected \[3, 3, 2, 2\]",
  ),
  "groups": (
    changed("layer1.0.conv2.weight", lambda x: x[:, :1].copy()),
    r"layer1\.0\.conv2\.weight",
  ),
  "a vector": (
    changed("bn1.bias", lambda x: x[:3].copy()),
    r"bn1\.bias is \[3\]",
  ),
  "gray": (
    changed("conv1.weight", lambda x: x[:, :1].copy()),
    "first convolution is 7 × 7 on 1",
  ),
  "integers": (
    changed("conv1.weight", lambda x: x.astype(np.int8)),
    r"conv1\.weight is int8; expected floating",
  ),
  "NaN": (
    changed("layer1.1.bn1.weight", lambda x: x * np.nan),
    "group0_block1/norm0/scale holds values that are not finite",
  ),
  "infinity of float64": (
    changed("bn1.bias", lambda x: x.astype(np.float64) + 1e300),
    "not finite",
  ),
  "empty": (
    changed("bn1.bias", lambda x: x[:0].copy()),
    r"bn1\.bias has no elements",
  ),
  "no count": (
    changed("bn1.num_batches_tracked", lambda x: np.array(-3)),
    r"bn1\.num_batches_tracked is -3",
  ),
  "shape of a count": (
    changed("bn1.num_batches_tracked", lambda x: np.array([3])),
    r"bn1\.num_batches_tracked is \[1\]",
  ),
  "extra": (
    lambda named: named | {"layer1.0.gamma": np.ones(3, np.float32)},
    r"layer1\.0\.gamma under the encoder's prefix",
  ),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_networks_that_do_not_fit_are_refused(tmp_path, named, change, said):
  refused(saved(tmp_path, change(named)), said)


def huggingface_folder(tmp_path, config, processor=None):
  saved(
    tmp_path, torch_made.state_dict("huggingface"), name="model.safetensors"
  )
  for name, value in (
    ("config.json", config),
    ("preprocessor_config.json", processor),
  ):
    if value is not None:
      (tmp_path / name).write_text(json.dumps(value))
  return str(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("processor", "size", "ratio"),
  [
    (None, 224, 0.875),
    ({"size": 160, "crop_pct": 0.8}, 160, 0.8),  # ConvNext's
    ({"size": {"shortest_edge": 384}}, 384, 1.0),
    (
      {"size": {"shortest_edge": 40}, "crop_size": {"height": 32}},
      32,
      0.8,
    ),
  ],
)
def test_folders_of_hugging_face_are_read(tmp_path, processor, size, ratio):
  path = huggingface_folder(tmp_path, {"model_type": "resnet"}, processor)
  for where in (path, os.path.join(path, "model.safetensors")):
    found = torch_weights.read(where)
    assert_equal(found, torch_made.encoder_weights())
    assert found.format == "huggingface"
    assert (found.image_size, found.crop_ratio) == (size, ratio)


@pytest.mark.parametrize(
  ("config", "processor", "said"),
  [
    ({"model_type": "regnet"}, None, "model_type='regnet'; expected 'resnet'"),
    ({}, None, "model_type=None"),
    (
      {"model_type": "resnet", "downsample_in_bottleneck": True},
      None,
      "downsample_in_bottleneck=True; expected False",
    ),
    (
      {"model_type": "resnet"},
      {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
      r"normalises by mean \[0.5, 0.5, 0.5\]",
    ),
    ([], None, "config.json is no JSON object"),
    ({"model_type": "resnet"}, {"image_mean": 5}, "normalises by mean 5 and"),
    ({"model_type": "\x1b[" * 999}, None, "model_type='.{100,110}…; expected"),
  ],
)
def test_folders_that_compute_something_else(tmp_path, config, processor, said):
  refused(huggingface_folder(tmp_path, config, processor), said)


def test_folders_without_weights(tmp_path):
  refused(str(tmp_path), "neither model.safetensors nor pytorch_model.bin")
  (tmp_path / "model.safetensors.index.json").write_text("{}")
  refused(str(tmp_path), "in several files")


def header(tmp_path, tensors, size):
  """A .safetensors file with a header that says anything."""
  text = json.dumps(tensors).encode()
  path = tmp_path / "b.safetensors"
  path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
  return str(path)


def entry(begin, end, shape=(2,), dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
  "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "invalid offset"),
  "out of range": ({"a": entry(0, 8)}, 4, "not fully covered"),
  "beyond": ({"a": entry(0, 2**62, [2**60])}, 8, "no whole .safetensors"),
  "reversed": ({"a": entry(8, 0)}, 8, "invalid offset"),
  "overflow": ({"a": entry(0, 8, [2**40, 2**40])}, 8, "overflow"),
  "a gap": ({"a": entry(4, 12)}, 12, "no whole .safetensors"),
  "no entry": ({"a": 3}, 8, "invalid JSON"),
  "type": ({"a": entry(0, 8, (8,), "F8_E4M3")}, 8, "type F8_E4M3"),
  "unknown type": ({"a": entry(0, 8, (2,), "X1")}, 8, "no whole .safetensors"),
}


@pytest.mark.parametrize(
  ("tensors", "size", "said"), HEADERS.values(), ids=HEADERS
)
def test_safetensors_that_lie_are_refused(tmp_path, tensors, size, said):
  refused(header(tmp_path, tensors, size), said)


@pytest.mark.parametrize(
  "data", [b"", b"\1\2\3", (2**62).to_bytes(8, "little"), bytes(8), b"{" * 99]
)
def test_what_is_no_safetensors_is_refused(tmp_path, data):
  path = tmp_path / "a.safetensors"
  path.write_bytes(data)
  refused(str(path), "no whole .safetensors file")


STEMS = ("conv1.weight", "layer1.0.conv1.weight")


@pytest.mark.parametrize(
  ("names", "said"),
  [
    ((*STEMS, "\x1b[31mred"), "no plain text"),
    ((*STEMS, "x" * 501), "no plain text"),
    ([f"{n}.{stem}" for n in range(40) for stem in STEMS], "40 encoders"),
    # Of each block, as many layers would be looked for.
    (
      [*STEMS, *(f"layer1.{n}.conv9999.weight" for n in range(1, 2000))],
      "It lacks .* and .* more",
    ),
  ],
)
def test_names_that_would_fill_memory_or_a_screen(tmp_path, names, said):
  begin = time.monotonic()
  one = np.zeros(1, np.float32)
  refused(saved(tmp_path, dict.fromkeys(names, one)), said)
  assert time.monotonic() - begin < 60


def test_a_file_that_ends_early_is_refused(tmp_path, named):
  path = saved(tmp_path, named)
  with open(path, "rb+") as file:
    file.truncate(os.path.getsize(path) - 1)
  refused(path, "no whole .safetensors file")


def test_a_stem_for_small_images_is_told_with_what_it_is_taken_to_be(tmp_path):
  model = made.model_with(
    architecture="bottleneck:2-1:8-12:4",
    stem="small",
    shortcut="identity",
    padding="symmetric",
  )
  path = saved(tmp_path, torch_made.state_dict(model=model))
  found = torch_weights.read(path)
  assert (found.image_size, found.crop_ratio) == (32, 1)
  lines = importing.describe(found, path, "0")
  assert any("images: 32 pixels, the middle 1 of" in line for line in lines)
  assert "solo-learn's pads two" in lines[-1]
  other = torch_weights.read(saved(tmp_path, torch_made.state_dict()))
  assert other.image_size == 224
  assert not any("solo" in x for x in importing.describe(other, path, "0"))


def test_a_file_of_another_program_has_no_description(tmp_path, named):
  _, metadata = safetensors_files.read(
    saved(tmp_path, named, metadata={"format": "pt"})
  )
  assert metadata == {"format": "pt"}


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("{", "is no JSON object"),
    ("[]", "is no JSON object"),
    ("{}", "exported by another version"),
  ],
)
def test_descriptions_are_checked(tmp_path, named, text, said):
  refused(saved(tmp_path, named, metadata={"byol_flax": text}), said)
