"""This project's own weight file gives back what was written, or refuses."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest

from byol_flax.weights import arrays, npz, opening
from byol_flax.weights.arrays import Stored
from byol_flax.weights.errors import WeightsError
from tests.weights import made


@pytest.fixture(scope="module")
def whole():
  return made.weights()


@pytest.fixture
def file(whole, tmp_path):
  path = str(tmp_path / npz.FILE)
  npz.write(path, whole)
  return path


def assert_equal(found, expected):
  ours, theirs = npz.leaves(found), npz.leaves(expected)
  assert ours.keys() == theirs.keys()
  for name, stored in theirs.items():
    array = ours[name].load()
    assert array.dtype == stored.dtype
    np.testing.assert_array_equal(array, stored.load())


def test_everything_comes_back_bit_for_bit(whole, file):
  found = opening.open_weights(file)
  assert_equal(found, whole)
  for name in ("step", "image_size", "crop_ratio", "details", "model"):
    assert getattr(found, name) == getattr(whole, name)


def test_an_encoder_alone_comes_back(tmp_path):
  alone = made.weights(modules=("encoder",))
  npz.write(str(tmp_path / npz.FILE), alone)
  found = opening.open_weights(opening.file_of(str(tmp_path)))
  assert_equal(found, alone)
  assert found.momentum is None
  assert "projector" not in found.model


def test_numpy_reads_it_too(whole, file):
  with np.load(file) as arrays:
    name = "online/params/encoder/stem_conv/kernel"
    np.testing.assert_array_equal(arrays[name], npz.leaves(whole)[name].load())


def rewritten(file, change):
  """Writes the file anew, with its entries changed by `change`."""
  with zipfile.ZipFile(file) as old:
    entries = {info.filename: old.read(info) for info in old.infolist()}
  change(entries)
  with zipfile.ZipFile(file, "w") as new:
    for name, content in entries.items():
      new.writestr(name, content)


def change_card(**changes):
  def change(entries):
    card = json.loads(entries["card.json"]) | changes
    entries["card.json"] = json.dumps(card).encode()

  return change


def header_of(shape, dtype="<f4"):
  text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
  padded = text.ljust(117) + "\n"
  return (
    b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + (padded.encode())
  )


STEM = "online/params/encoder/stem_conv/kernel.npy"


def renamed(group):
  return f"online/params/encoder/{group}_block0/conv0/kernel.npy"


REFUSED = {
  "no card": (lambda entries: entries.pop("card.json"), "no card.json"),
  "a card that is no JSON": (
    lambda entries: entries.update({"card.json": b"{"}),
    "card.json cannot be read",
  ),
  "a newer version": (change_card(version=2), "newer version"),
  "a padding of its own": (change_card(padding="reflect"), "padding is"),
  "no averages' decay": (change_card(decay="x"), "decay is"),
  "data without a name": (
    change_card(details={"trained_by": "byol", "trained_on": 5}),
    "its trained_on names no data set",
  ),
  "a training of no kind": (
    change_card(details={"trained_by": ["byol"]}),
    "its trained_by is neither",
  ),
  "negative steps": (change_card(step=-1), "step is -1"),
  "an array too few": (lambda entries: entries.pop(STEM), "no blocks and stem"),
  "a leaf too few": (
    lambda entries: entries.pop(
      STEM.replace("stem_conv/kernel", "stem_norm/scale")
    ),
    r"online/params/encoder/stem_norm/scale \[4\] is missing",
  ),
  "a leaf too many": (
    lambda entries: entries.update(
      {STEM.replace("kernel", "bias"): entries[STEM]}
    ),
    "stem_conv/bias .* is left over",
  ),
  "an array above an array": (
    lambda entries: entries.update(
      {STEM.replace("/kernel", ""): entries[STEM]}
    ),
    "above",
  ),
  "something else": (
    lambda entries: entries.update({"run.sh": b""}),
    "'run.sh', which is no array",
  ),
  "an array that lies about its size": (
    lambda entries: entries.update({STEM: header_of((10**9, 10**9))}),
    "has 128 bytes; expected",
  ),
  "negative sizes": (
    lambda entries: entries.update({STEM: header_of((-1, 4))}),
    "stem_conv",
  ),
  "objects": (
    lambda entries: entries.update({STEM: header_of((1,), "|O")}),
    "holds object",
  ),
  "a header that is no literal": (
    lambda entries: entries.update(
      {STEM: header_of((1,)).replace(b"'shape': ", b"'shape'\0(((")}
    ),
    "is no array",
  ),
  "a header that Python cannot parse": (
    lambda entries: entries.update({STEM: header_of("-" * 9000)}),
    "is no array",
  ),
  "a group of many digits": (
    lambda entries: entries.update({renamed("group9999999999"): entries[STEM]}),
    "group9999999999_block0/conv0/kernel .* is left over",
  ),
  "a group of thousands of digits": (
    lambda entries: entries.update(
      {renamed("group" + "9" * 5000): entries[STEM]}
    ),
    "no plain text of at most 500",
  ),
  "a tree of thousands of levels": (
    lambda entries: entries.update({renamed("a/" * 20_000): entries[STEM]}),
    "no plain text of at most 500",
  ),
  "text for an array": (
    lambda entries: entries.update({STEM: b"import os"}),
    "is no array",
  ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_ours_is_refused(file, kind):
  change, said = REFUSED[kind]
  rewritten(file, change)
  with pytest.raises(WeightsError, match=said) as told:
    opening.open_weights(file)
  assert str(told.value).startswith(file)


def test_a_flipped_bit_is_found(file):
  with zipfile.ZipFile(file) as archive:
    offset = archive.getinfo(STEM).header_offset
  with open(file, "r+b") as raw:
    raw.seek(offset + 300)
    byte = raw.read(1)
    raw.seek(offset + 300)
    raw.write(bytes([byte[0] ^ 1]))
  # Zip looks at the checksum when the entry's end is read.
  with pytest.raises(WeightsError, match=r"stem_conv/kernel|damaged"):
    npz.leaves(opening.open_weights(file))[STEM.removesuffix(".npy")].load()


def test_names_that_are_no_text_are_refused(file):
  with open(file, "rb") as raw:
    content = raw.read()
  at = content.rindex(b"PK\1\2")  # the last entry of the table
  changed = bytearray(content)
  changed[at + 9] |= 8  # its name is UTF-8
  changed[at + 46] = 0xB6
  with open(file, "wb") as raw:
    raw.write(changed)
  with pytest.raises(WeightsError, match=r"damaged zip archive"):
    opening.open_weights(file)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(file, share):
  with open(file, "r+b") as raw:
    raw.truncate(int(share * len(raw.read())))
  with pytest.raises(WeightsError):
    opening.open_weights(file)


def test_weights_that_are_not_finite_are_refused(whole, tmp_path):
  leaves = npz.leaves(whole)
  name = STEM.removesuffix(".npy")
  damaged = leaves[name].load().copy()
  damaged[0, 0, 0, 0] = np.nan
  online = arrays.nested(leaves | {name: Stored.of(damaged)})["online"]
  path = str(tmp_path / npz.FILE)
  npz.write(
    path, dataclasses.replace(whole, networks={"online": online}, momentum=None)
  )
  with pytest.raises(WeightsError, match="stem_conv/kernel holds values"):
    arrays.read(opening.open_weights(path).encoder)


def changed(whole, tmp_path, array):
  """A file in which `array` stands for the first kernel."""
  leaves = npz.leaves(whole) | {STEM.removesuffix(".npy"): Stored.of(array)}
  tree = arrays.nested(leaves)
  path = str(tmp_path / "changed.npz")
  networks = {name: tree[name] for name in ("online", "target")}
  npz.write(path, dataclasses.replace(whole, networks=networks))
  return path


def test_whole_numbers_are_no_weights(whole, tmp_path):
  path = changed(whole, tmp_path, np.ones((3, 3, 3, 4), np.int32))
  with pytest.raises(WeightsError, match="int32; expected floating numbers"):
    opening.open_weights(path)


def test_numbers_too_large_for_a_network_are_refused(whole, tmp_path):
  path = changed(whole, tmp_path, np.full((3, 3, 3, 4), 1e39))
  with pytest.raises(WeightsError, match="kernel holds values that are not"):
    arrays.read(opening.open_weights(path).encoder)


def test_what_is_no_weight_file_is_told(tmp_path):
  path = tmp_path / "notes.txt"
  path.write_text("a note")
  with pytest.raises(WeightsError, match="no weight file of a known format"):
    opening.open_weights(str(path))
  assert opening.file_of(str(tmp_path)) is None
