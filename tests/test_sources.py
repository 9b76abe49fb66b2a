import os
import re
import shlex
import socket

import cloudpickle
import cv2
import numpy as np
import prepare_cifar10
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from input_pipeline import tfds_sources
from input_pipeline.decoding import decode_image
from input_pipeline.errors import UsageError
from input_pipeline.folders import FolderSource
from input_pipeline.sources import ReadableSource, open_source


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  """Fails a test that opens a connection, even where the error is caught."""
  attempts = []

  def refuse(self, address):
    attempts.append(address)
    raise OSError("no network in tests")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: refuse(None, a))
  yield
  assert not attempts


def picture(seed, height=6, width=5):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, seed=0):
  """Writes `picture(seed)` and the folders above it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  _, data = cv2.imencode(".png", picture(seed)[..., ::-1])
  path.write_bytes(data.tobytes())


def make_folder(root, names):
  """One image per name, the k-th of them `picture(k)`."""
  for seed, name in enumerate(names):
    write(root / name, seed)
  return f"folder:{root}"


def relative(source, root):
  return [
    os.path.relpath(source.example_name(i), root) for i in range(len(source))
  ]


def labels(source):
  return [int(source[i]["label"]) for i in range(len(source))]


# Digits.


def test_digits_are_scikit_learns():
  images, classes = load_digits(return_X_y=True)
  seen = []
  for split, size in (("train", 1437), ("test", 360)):
    source = open_source("digits", split)
    assert (source.name, source.split) == ("digits", split)
    assert source.num_classes == 10
    assert len(source) == size
    for i in range(size):
      number = int(source.example_name(i).removeprefix("digits image "))
      example = source[i]
      grey = np.round(images[number].reshape(8, 8) * 255 / 16)
      assert example["image"].dtype == np.uint8
      np.testing.assert_array_equal(
        example["image"], np.stack([grey] * 3, axis=-1)
      )
      assert example["label"] == classes[number]
      assert example["label"].dtype == np.int32
      seen.append(number)
  assert sorted(seen) == list(range(1797)), "train and test should be disjoint"


def test_digits_are_stratified_and_constant():
  test = np.bincount(labels(open_source("digits", "test")))
  total = np.bincount(load_digits().target)
  assert np.abs(test - total / 5).max() < 1
  names = relative(open_source("digits", "test"), ".")
  numbers = [int(name.split()[-1]) for name in names]
  assert numbers[:8] == [9, 12, 15, 27, 34, 39, 52, 59]
  assert sum(i * n for i, n in enumerate(numbers)) == 79_570_942


def test_digits_has_two_splits():
  with pytest.raises(UsageError, match=r"no split 'valid'.*train, test"):
    open_source("digits", "valid")


# Slices.


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


# Folders.


def test_folder_is_read_whole_and_in_order(tmp_path):
  names = ["cat/b.PNG", "cat/a.png", "dog/x/y/c.png", "Z.png", "cat.png"]
  source = open_source(make_folder(tmp_path, names), "all")
  order = ["Z.png", "cat.png", "cat/a.png", "cat/b.PNG", "dog/x/y/c.png"]
  assert relative(source, tmp_path) == order
  assert labels(source) == [-1, -1, 0, 0, 1]
  assert source.num_classes == 2
  for i, name in enumerate(order):
    example = source[i]
    expected = picture(names.index(name))
    assert isinstance(example["image"], bytes)
    np.testing.assert_array_equal(decode_image(example["image"]), expected)
    assert example["label"].dtype == np.int32


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
  name = make_folder(tmp_path, [f"{k % 3}/{k}.png" for k in range(20)])
  expected = relative(open_source(name, "all"), tmp_path)
  scandir = os.scandir

  class Reversed:
    def __init__(self, path):
      with scandir(path) as entries:
        self.entries = list(entries)[::-1]

    def __enter__(self):
      return iter(self.entries)

    def __exit__(self, *error):
      pass

  monkeypatch.setattr(os, "scandir", Reversed)
  assert relative(open_source(name, "all"), tmp_path) == expected


def test_extensions_and_hidden_files(tmp_path):
  good = ["a.JPG", "b.jpeg", "c.Png", "d.webp", "e.BMP"]
  bad = ["f.gif", "g.txt", "h.png.part", ".i.png", ".git/j.png", "png"]
  name = make_folder(tmp_path, [*good, *bad, "__MACOSX/k.png", "x/.y/l.png"])
  (tmp_path / "folder.png").mkdir()
  assert relative(open_source(name, "all"), tmp_path) == good


def test_split_folders_agree_on_classes(tmp_path):
  names = ["train/b/1.png", "train/d/2.png", "train/3.png", "test/a/4.png"]
  name = make_folder(tmp_path, [*names, "test/d/5.png", "test/e/notes.txt"])
  train, test = open_source(name, "train"), open_source(name, "test")
  assert train.num_classes == test.num_classes == 3
  assert labels(train) == [-1, 1, 2]
  assert labels(test) == [0, 2]
  half = open_source(name, "train[:67%]")
  assert relative(half, tmp_path) == ["train/3.png", "train/b/1.png"]


def test_unlabelled_folder(tmp_path):
  name = make_folder(tmp_path, ["train/a/1.png", "train/b/2.png"])
  name = name.replace("folder", "unlabelled", 1)
  source = open_source(name, "train")
  assert source.num_classes == 0
  assert labels(source) == [-1, -1]


def test_symbolic_links(tmp_path):
  name = make_folder(tmp_path / "data", ["a/1.png", "b/c/2.png"])
  write(tmp_path / "elsewhere/3.png")
  data = tmp_path / "data"
  (data / "a/up").symlink_to(data)
  (data / "b/c/self").symlink_to(data / "b/c/self")
  (data / "b/self.png").symlink_to(data / "b/self.png")
  (data / "b/gone.png").symlink_to(data / "nowhere.png")
  (data / "d").symlink_to(tmp_path / "elsewhere")
  (data / "e.png").symlink_to(tmp_path / "elsewhere/3.png")
  source = open_source(name, "all")
  files = ["a/1.png", "b/c/2.png", "d/3.png", "e.png"]
  assert relative(source, data) == files
  assert labels(source) == [0, 1, 2, -1]


def test_names_in_any_script(tmp_path):
  odd = os.fsdecode(b"caf\xe9 \n.png")
  name = make_folder(tmp_path, [odd, "ひ/[0].png"])
  source = cloudpickle.loads(cloudpickle.dumps(open_source(name, "all")))
  assert relative(source, tmp_path) == sorted([odd, "ひ/[0].png"])
  assert decode_image(source[0]["image"]).shape == (6, 5, 3)


def test_home_and_relative_paths(tmp_path, monkeypatch):
  make_folder(tmp_path / "images", ["a.png"])
  monkeypatch.setenv("HOME", str(tmp_path))
  for path in ("~/images", "images"):
    monkeypatch.chdir(tmp_path)
    source = open_source(f"folder:{path}", "all")
    monkeypatch.chdir("/")
    assert decode_image(source[0]["image"]).shape == (6, 5, 3)


def test_folder_mistakes(tmp_path):
  name = make_folder(tmp_path, ["train/a.png"])
  (tmp_path / "empty").mkdir()
  with pytest.raises(UsageError, match=r"split 'test'.*all.*empty, train"):
    open_source(name, "test")
  with pytest.raises(UsageError, match=r"empty holds no images.*webp"):
    open_source(name, "empty")
  with pytest.raises(UsageError, match=r"'.*nowhere' does not exist"):
    open_source(f"{name}/nowhere", "all")
  with pytest.raises(UsageError, match=r"a.png' is a file"):
    open_source(f"{name}/train/a.png", "all")
  with pytest.raises(UsageError, match="'' does not exist"):
    open_source("folder:", "all")


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(
  tmp_path, monkeypatch
):
  name = make_folder(tmp_path, ["a/1.png", "b/2.png"])
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith("b"):
      raise PermissionError(13, "Permission denied", str(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(UsageError, match="/b is not: Permission denied"):
    open_source(name, "all")


# TFDS.

NAMES = [f"class {k}" for k in range(10)]


def cifar10_images(seed, size):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
  return images, rng.integers(0, 10, size)


CIFAR10 = {"train": cifar10_images(0, 40), "test": cifar10_images(1, 12)}


@pytest.fixture(scope="module")
def cifar10_dir(tmp_path_factory):
  out = str(tmp_path_factory.mktemp("tfds"))
  prepare_cifar10.write_cifar10(out, CIFAR10, NAMES)
  return out


def store(data_dir, features, examples, name="made_up"):
  """Writes a data set that TFDS has no code for."""

  class MadeUp(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.3")

    def _info(self):
      features_dict = tfds.features.FeaturesDict(features)
      return tfds.core.DatasetInfo(builder=self, features=features_dict)

    def _split_generators(self, dl_manager):
      return {"holdout": enumerate(examples)}

    def _generate_examples(self):
      raise NotImplementedError

  MadeUp.name = name
  builder = MadeUp(data_dir=str(data_dir), file_format="array_record")
  builder.download_and_prepare()
  return name


def png(seed):
  return cv2.imencode(".png", picture(seed)[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("split", ["train", "test"])
def test_tfds_returns_every_image_with_its_label(cifar10_dir, split):
  source = open_source("cifar10", split, cifar10_dir)
  images, classes = CIFAR10[split]
  assert source.num_classes == 10
  assert len(source) == len(images)
  found = {}
  for i in range(len(source)):
    example = source[i]
    assert set(example) == {"image", "label"}
    assert example["image"].startswith(b"\x89PNG")
    assert example["label"].dtype == np.int32
    found[decode_image(example["image"]).tobytes()] = int(example["label"])
  expected = {x.tobytes(): int(y) for x, y in zip(images, classes, strict=True)}
  assert found == expected


def test_tfds_order_is_fixed_and_slices_follow_it(cifar10_dir):
  whole = [x["image"] for x in open_source("cifar10", "train", cifar10_dir)]
  again = [x["image"] for x in open_source("cifar10", "train", cifar10_dir)]
  part = open_source("cifar10", "train[25%:50%]", cifar10_dir)
  assert again == whole
  assert [x["image"] for x in part] == whole[10:20]
  assert part.example_name(3) == "cifar10 train record 13"


def test_held_out_images_are_the_last_of_train(tmp_path, monkeypatch):
  store(
    tmp_path,
    {
      "image": tfds.features.Image(),
      "label": tfds.features.ClassLabel(num_classes=9),
    },
    [{"image": png(k), "label": k} for k in range(9)],
    name="imagenet2012",
  )
  train = tfds_sources._train(9, 2)
  assert train["valid"] == ("train[7:]", 2)
  splits = {
    k: (v.replace("train", "holdout"), n) for k, (v, n) in train.items()
  }
  monkeypatch.setitem(
    tfds_sources.KNOWN, "imagenet2012", tfds_sources.Facts(9, splits)
  )
  whole = labels(open_source("imagenet2012", "train", str(tmp_path)))
  assert sorted(whole) == list(range(9))
  for split, expected in (
    ("valid", whole[7:]),
    ("train_without_valid", whole[:7]),
  ):
    assert labels(open_source("imagenet2012", split, str(tmp_path))) == expected


def test_known_data_sets_have_the_papers_sizes():
  splits = tfds_sources.KNOWN["imagenet2012"].splits
  assert splits["train_without_valid"] == ("train[:1271158]", 1_271_158)
  assert splits["valid"] == ("train[1271158:]", 10_009)
  assert splits["test"] == ("validation", 50_000)
  for name, facts in tfds_sources.KNOWN.items():
    sizes = {split: size for split, (_, size) in facts.splits.items()}
    if "valid" in sizes:
      held_out = sizes["train_without_valid"] + sizes["valid"]
      assert held_out == sizes["train"], name


def test_known_data_sets_are_tfdss():
  for name, facts in tfds_sources.KNOWN.items():
    builder = tfds.builder(name, data_dir="/nonexistent")
    features = builder.info.features
    assert isinstance(features["image"], tfds.features.Image)
    assert features["label"].num_classes == facts.num_classes


def test_split_that_the_prepared_data_cannot_fill(cifar10_dir):
  with pytest.raises(
    UsageError, match=r"'valid' of cifar10 is 'train\[45000:\]'"
  ):
    open_source("cifar10", "valid", cifar10_dir)


def test_data_set_without_code_in_tfds(tmp_path):
  features = {
    "photo": tfds.features.Image(),
    "kind": tfds.features.ClassLabel(num_classes=3),
    "note": tfds.features.Text(),
  }
  examples = [{"photo": png(k), "kind": k, "note": "x"} for k in range(3)]
  name = store(tmp_path, features, examples)
  source = open_source(name, "holdout", str(tmp_path))
  assert source.num_classes == 3
  for example in source:
    expected = picture(int(example["label"]))
    np.testing.assert_array_equal(decode_image(example["image"]), expected)
  with pytest.raises(UsageError, match="no split 'train'; it has: holdout"):
    open_source(name, "train", str(tmp_path))


def test_data_set_without_label(tmp_path):
  name = store(tmp_path, {"image": tfds.features.Image()}, [{"image": png(0)}])
  source = open_source(name, "holdout", str(tmp_path))
  assert source.num_classes == 0
  assert labels(source) == [-1]


def test_the_image_among_several_is_called_image(tmp_path):
  image, label = tfds.features.Image, tfds.features.ClassLabel
  examples = [{"image": png(0), "mask": png(1), "text": 1, "label": 0}]
  features = {"image": image(), "mask": image()}
  features |= {"text": label(num_classes=2), "label": label(num_classes=1)}
  name = store(tmp_path, features, examples)
  example = open_source(name, "holdout", str(tmp_path))[0]
  np.testing.assert_array_equal(decode_image(example["image"]), picture(0))
  assert example["label"] == 0


def test_data_sets_without_one_image(tmp_path):
  left, right = [{"left": png(0), "right": png(1)}], tfds.features.Image
  name = store(tmp_path, {"left": right(), "right": right()}, left, "two")
  with pytest.raises(UsageError, match=r"several.*Image.*left, right"):
    open_source(name, "holdout", str(tmp_path))
  name = store(tmp_path, {"text": tfds.features.Text()}, [{"text": "x"}], "no")
  with pytest.raises(UsageError, match=r"should have an image.*are text"):
    open_source(name, "holdout", str(tmp_path))


def test_labels_out_of_range(cifar10_dir):
  source = open_source("cifar10", "train", cifar10_dir)
  highest = max(range(40), key=lambda i: source[i]["label"])
  source._source.num_classes = int(source[highest]["label"])
  message = f"from 0 to .*cifar10 train record {highest} has"
  with pytest.raises(UsageError, match=message):
    source[highest]
  with pytest.raises(UsageError, match=message):
    ReadableSource(source)[highest]


def test_unknown_data_sets():
  for name, hint in (
    ("cifr10", "cifar10"),
    ("imagenet", "imagenet"),
    ("Digits", "digits"),
    ("foldr:/images", "folder"),
  ):
    with pytest.raises(UsageError, match=f"digits, folder:PATH.*mean {hint}"):
      open_source(name, "train")
  for name in ("", "a b", "huggingface:mnist", "https://x.org/y", "qqqqqqqqq"):
    with pytest.raises(UsageError, match="Unknown data set"):
      open_source(name, "train")
  for name in ("cifar10:9.9.9", "imagenette/17px"):
    with pytest.raises(UsageError, match=f"TFDS has no '{name}'"):
      open_source(name, "train")


def test_unknown_split_of_a_known_data_set(cifar10_dir):
  expected = "'validation'; it has: train, train_without_valid, valid, test"
  with pytest.raises(UsageError, match=expected):
    open_source("cifar10", "validation", cifar10_dir)


def offered_call(message, monkeypatch):
  """Runs the command in an error's text; returns what it would prepare."""
  python, flag, code = shlex.split(message[message.index("python -c") :])
  assert (python, flag) == ("python", "-c")
  calls = []

  def prepare(self, **options):
    calls.append((self, options))

  with monkeypatch.context() as patch:
    patch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    exec(code)
  [(builder, options)] = calls
  return builder, options


def test_not_prepared(tmp_path, monkeypatch):
  data_dir = str(tmp_path / "it's here")
  with pytest.raises(UsageError, match="should be prepared") as error:
    open_source("imagenette/160px-v2", "train", data_dir)
  builder, options = offered_call(str(error.value), monkeypatch)
  assert builder.info.full_name == "imagenette/160px-v2/1.0.0"
  assert builder.data_dir.startswith(data_dir)
  assert builder.info.file_format.value == "array_record"
  assert options == {}
  assert not os.path.exists(data_dir)


def test_prepared_in_another_file_format(tmp_path, monkeypatch):
  old = str(tmp_path / "old")
  prepare_cifar10.write_cifar10(old, CIFAR10, NAMES, file_format="tfrecord")
  with pytest.raises(UsageError, match="holds tfrecord") as error:
    open_source("cifar10", "train", old)
  new = re.search(r"data_dir=(\S+):", str(error.value))[1]
  builder, options = offered_call(str(error.value), monkeypatch)
  assert builder.data_dir == f"{new}/cifar10/3.0.2"
  assert builder.info.file_format.value == "array_record"
  assert options == {"download_dir": f"{old}/downloads"}


def test_tfds_default_directory(cifar10_dir, monkeypatch):
  monkeypatch.setattr(tfds.core.constants, "DATA_DIR", cifar10_dir)
  assert len(open_source("cifar10", "train")) == 40


# All of them.


def test_sources_survive_pickling_and_are_small(tmp_path, cifar10_dir):
  folder = make_folder(tmp_path, ["a/1.png", "b/2.png", "c.png"])
  for name, split in (
    ("digits", "train[:90%]"),
    (folder, "all"),
    ("cifar10", "test"),
  ):
    source = open_source(name, split, cifar10_dir)
    source[0]  # Opens what it opens on first use.
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


def test_folders_of_imagenets_size_are_cheap_to_send(tmp_path):
  files = [f"n{k // 1000:08d}/n{k // 1000:08d}_{k}.JPEG" for k in range(99_000)]
  classes = sorted({file.split("/")[0] for file in files})
  source = FolderSource("folder:x", "all", str(tmp_path), files, classes)
  assert len(cloudpickle.dumps(source)) < 40 * len(files)


def test_readable_source_decodes(cifar10_dir):
  source = ReadableSource(open_source("cifar10", "train", cifar10_dir))
  example = source[7]
  image = decode_image(open_source("cifar10", "train", cifar10_dir)[7]["image"])
  np.testing.assert_array_equal(example["image"], image)
  assert example["unreadable"] == -1
  assert example["unreadable"].dtype == np.int64
  digits = open_source("digits", "test")
  np.testing.assert_array_equal(
    ReadableSource(digits)[3]["image"], digits[3]["image"]
  )


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
