import re

import cloudpickle
import numpy as np
import pytest
from sklearn.datasets import load_digits

from input_pipeline import sources
from input_pipeline.errors import UsageError
from input_pipeline.sources import ReadableSource, open_source
from tests.input_pipeline.test_folders import labels, make_folder, picture

IMAGES, CLASSES = load_digits(return_X_y=True)


def digit(number):
  """Image and label of scikit-learn's digit `number`, brought to 0..255."""
  grey = np.round(IMAGES[number].reshape(8, 8) * 255 / 16)
  return np.stack([grey] * 3, axis=-1), CLASSES[number]


def test_digits_are_scikit_learns():
  seen = []
  for split, size in (("train", 1437), ("test", 360)):
    source = open_source("digits", split)
    assert (source.name, source.split) == ("digits", split)
    assert source.num_classes == 10
    assert len(source) == size
    for i in range(size):
      number = int(source.example_name(i).removeprefix("digits image "))
      example = source[i]
      image, label = digit(number)
      assert example["image"].dtype == np.uint8
      np.testing.assert_array_equal(example["image"], image)
      assert example["label"] == label
      assert example["label"].dtype == np.int32
      seen.append(number)
  assert sorted(seen) == list(range(1797)), "train and test should be disjoint"


def test_digits_are_stratified_and_constant():
  test = np.bincount(labels(open_source("digits", "test")))
  total = np.bincount(CLASSES)
  assert np.abs(test - total / 5).max() < 1
  source = open_source("digits", "test")
  numbers = [int(source.example_name(i).split()[-1]) for i in range(360)]
  assert numbers[:8] == [9, 12, 15, 27, 34, 39, 52, 59]
  assert sum(i * n for i, n in enumerate(numbers)) == 79_570_942


def test_digits_has_two_splits():
  with pytest.raises(UsageError, match=r"no split 'valid'.*train, test"):
    open_source("digits", "valid")


@pytest.mark.parametrize(
  ("split", "start", "stop"),
  [
    ("test", 0, 360),
    ("test[:90%]", 0, 324),
    ("test[90%:]", 324, 360),
    ("test[33%:67%]", 119, 241),
    ("test[100:200]", 100, 200),
    ("test[:]", 0, 360),
    ("test[-10:]", 350, 360),
    ("test[-10%:]", 324, 360),
    ("test[:-350]", 0, 10),
    ("test[359:360]", 359, 360),
  ],
)
def test_slices(split, start, stop):
  whole, part = open_source("digits", "test"), open_source("digits", split)
  assert part.split == split
  assert len(part) == stop - start
  for i in {0, (stop - start) // 2, stop - start - 1}:
    assert part.example_name(i) == whole.example_name(start + i)
    np.testing.assert_array_equal(part[i]["image"], whole[start + i]["image"])
    assert part[i]["label"] == whole[start + i]["label"]


def test_slices_end_where_they_end():
  part = open_source("digits", "test[10:20]")
  assert len(list(part)) == 10
  with pytest.raises(IndexError):
    part[10]


@pytest.mark.parametrize(
  "split", ["test[5:5]", "test[9:3]", "test[:0%]", "test[:361]", "test[-361:]"]
)
def test_empty_slices(split):
  with pytest.raises(UsageError, match=r"no examples .* 360 examples"):
    open_source("digits", split)


@pytest.mark.parametrize(
  "split",
  ["", "test[", "test[5]", "test[a:b]", "test[:5%", "[:5]", "../test", ".git"],
)
def test_malformed_splits(split):
  with pytest.raises(UsageError, match=r"train\[:90%\].*" + re.escape(split)):
    open_source("digits", split)


def test_pickled_sources_are_small_and_equal(tmp_path):
  folder = make_folder(tmp_path, ["a/1.png", "b/2.png", "c.png"])
  for name, split in (("digits", "train[:90%]"), (folder, "all")):
    source = open_source(name, split)
    for wrapped in (source, ReadableSource(source)):
      data = cloudpickle.dumps(wrapped)
      assert len(data) < 150_000
      copy = cloudpickle.loads(data)
      assert (copy.name, copy.split) == (name, split)
      assert copy.num_classes == source.num_classes
      assert len(copy) == len(source)
      last = len(source) - 1
      assert copy.example_name(last) == source.example_name(last)
      for key, value in wrapped[last].items():
        np.testing.assert_array_equal(copy[last][key], value)


def test_readable_source_decodes_bytes_and_passes_pixels(tmp_path):
  name = make_folder(tmp_path, ["a/1.png", "b/2.png"])
  for source, i, expected, label in (
    (open_source(name, "all"), 1, picture(1), 1),
    (open_source("digits", "test"), 2, *digit(15)),
  ):
    readable = ReadableSource(source)
    assert (readable.name, readable.split) == (source.name, source.split)
    assert readable.num_classes == source.num_classes
    assert len(readable) == len(source)
    example = readable[i]
    np.testing.assert_array_equal(example["image"], expected)
    assert example["label"] == label
    assert example["unreadable"] == -1
    assert example["unreadable"].dtype == np.int64


def test_neighbours_stand_in_for_unreadable_images(tmp_path):
  names = [f"{k % 2}/{k}.png" for k in range(6)]  # Sorted: 0 2 4 1 3 5.
  name = make_folder(tmp_path, names)
  source = ReadableSource(open_source(name, "all"))
  (tmp_path / "0/2.png").write_bytes(b"")
  whole = (tmp_path / "0/4.png").read_bytes()
  (tmp_path / "0/4.png").write_bytes(whole[: len(whole) // 2])
  (tmp_path / "1/5.png").unlink()
  stands_in = [0, 3, 3, 3, 4, 0]
  unreadable = [-1, 1, 2, -1, -1, 5]
  order = [0, 2, 4, 1, 3, 5]
  for _ in range(2):
    for i in (5, 2, 1, 0, 4, 3):  # In any order, any number of times.
      example = source[np.int64(i)]
      expected = order[stands_in[i]]
      np.testing.assert_array_equal(example["image"], picture(expected))
      assert example["label"] == expected % 2
      assert example["unreadable"] == unreadable[i]
      assert example["unreadable"].dtype == np.int64
  assert source.example_name(2) == str(tmp_path / "0/4.png")
  with pytest.raises(IndexError):
    source[6]


def test_too_many_unreadable_images(tmp_path):
  name = make_folder(tmp_path, [f"{k:02d}.png" for k in range(40)])
  for k in range(33):
    (tmp_path / f"{k:02d}.png").write_bytes(b"\xff\xd8\xff")
  source = ReadableSource(open_source(name, "all"))
  example = source[2]  # The last of its 32 tries is the first good image.
  assert example["unreadable"] == 2
  np.testing.assert_array_equal(example["image"], picture(33))
  with pytest.raises(UsageError, match=r"32 neighbouring.*01.png.*32.png"):
    source[1]


def test_no_readable_image_at_all(tmp_path):
  name = make_folder(tmp_path, ["a.png", "b.png"])
  source = ReadableSource(open_source(name, "all"))
  (tmp_path / "a.png").unlink()
  (tmp_path / "b.png").write_bytes(b"\x89PNG")
  with pytest.raises(UsageError, match=r"Of 2 .*b.png.*a.png.*No such file"):
    source[1]


def test_a_fingerprint_changes_with_the_images(tmp_path):
  def fingerprint():
    return open_source(f"folder:{tmp_path}", "all").fingerprint

  seen = []
  for change in (
    lambda: (tmp_path / "a.png").write_bytes(b"12345"),
    lambda: (tmp_path / "b.png").write_bytes(b"1"),
    lambda: (tmp_path / "b.png").write_bytes(b"12"),
    lambda: (tmp_path / "b.png").rename(tmp_path / "c.png"),
  ):
    change()
    seen.append(fingerprint())
    assert fingerprint() == seen[-1]
  assert len(set(seen)) == 4
  digits = [open_source("digits", s) for s in ("train", "test")]
  assert digits[0].fingerprint != digits[1].fingerprint
  part = ReadableSource(open_source("digits", "train[:10]"))
  assert part.fingerprint == digits[0].fingerprint


class FakeSet:
  """Stands for a data set on disk; only places are asked for."""

  num_classes, ignored, class_names, fingerprint = 10, "", (), "f"

  def __init__(self, name, split):
    self.name, self.split = name, split


@pytest.mark.parametrize(
  ("one", "other", "shared"),
  [
    (("digits", "train", 0, 50), ("digits", "train", 40, 60), 10),
    (("digits", "train", 0, 50), ("digits", "train", 50, 60), 0),
    (("digits", "train", 0, 50), ("digits", "test", 0, 50), 0),
    # Of these the last 5,000 of TFDS's train are valid.
    (("cifar10", "train", 0, 50_000), ("cifar10", "valid", 0, 5_000), 5_000),
    (
      ("cifar10", "train_without_valid", 0, 45_000),
      ("cifar10", "valid", 0, 9),
      0,
    ),
    (("cifar10", "train", 45_007, 50_000), ("cifar10", "valid", 0, 9), 2),
    (("cifar10", "train", 0, 9), ("cifar100", "train", 0, 9), 0),
  ],
)
def test_images_that_splits_share_are_counted(one, other, shared):
  parts = [
    sources.Part(FakeSet(name, whole), whole, range(start, stop))
    for name, whole, start, stop in (one, other)
  ]
  assert sources.shared_examples(*parts) == shared
  assert sources.shared_examples(*reversed(parts)) == shared


class FakeSetOf(FakeSet):
  """Of another split, by itself."""

  def __init__(self, count):
    super().__init__("digits", "test")
    self._count = count

  def __len__(self):
    return self._count


def test_parts_of_parts_are_found_where_they_lie():
  whole = FakeSet("digits", "train")
  half = sources.Part(whole, "train[:50]", range(50))
  chosen = sources.Part(half, "chosen", np.array([3, 49, 7]))
  assert sources.shared_examples(chosen, half) == 3
  later = sources.Part(whole, "train[5:8]", range(5, 8))
  assert sources.shared_examples(chosen, later) == 1
  assert sources.shared_examples(chosen, FakeSetOf(50)) == 0
