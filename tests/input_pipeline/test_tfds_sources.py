import os
import re
import shlex
import socket
import sys

import cloudpickle
import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline import known_sets, tfds_sources
from input_pipeline.decoding import decode_image
from input_pipeline.errors import UsageError
from input_pipeline.sources import ReadableSource, open_source
from tests import prepare_cifar10
from tests.input_pipeline.test_folders import labels, picture


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
  train = known_sets.splits_of_train(9, 2)
  assert train["valid"] == ("train[7:]", 2)
  splits = {
    k: (v.replace("train", "holdout"), n) for k, (v, n) in train.items()
  }
  monkeypatch.setitem(
    known_sets.KNOWN, "imagenet2012", known_sets.Facts(9, splits)
  )
  whole = labels(open_source("imagenet2012", "train", str(tmp_path)))
  assert sorted(whole) == list(range(9))
  for split, expected in (
    ("valid", whole[7:]),
    ("train_without_valid", whole[:7]),
  ):
    assert labels(open_source("imagenet2012", split, str(tmp_path))) == expected


def test_known_data_sets_have_the_papers_sizes():
  splits = known_sets.KNOWN["imagenet2012"].splits
  assert splits["train_without_valid"] == ("train[:1271158]", 1_271_158)
  assert splits["valid"] == ("train[1271158:]", 10_009)
  assert splits["test"] == ("validation", 50_000)
  for name, facts in known_sets.KNOWN.items():
    sizes = {split: size for split, (_, size) in facts.splits.items()}
    if "valid" in sizes:
      held_out = sizes["train_without_valid"] + sizes["valid"]
      assert held_out == sizes["train"], name


def test_known_data_sets_are_tfdss():
  for name, facts in known_sets.KNOWN.items():
    builder = tfds.builder(name, data_dir="/nonexistent")
    features = builder.info.features
    assert isinstance(features["image"], tfds.features.Image)
    assert features["label"].num_classes == facts.num_classes


@pytest.mark.parametrize("name", ["imagenet2012_subset", "imagenette/160px-v2"])
def test_known_data_sets_are_known_with_and_without_their_config(name):
  builder = tfds.builder(name, data_dir="/nonexistent")
  names = tfds_sources._split_names(builder)
  assert names == {"train": "train", "test": "validation"}


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
  source.source.num_classes = int(source[highest]["label"])
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
    ("FOLDER:/images", "folder"),
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
  command = message[message.index(sys.executable) :]
  python, flag, code = shlex.split(command)
  assert (python, flag) == (sys.executable, "-c")
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


def test_pickled_data_sets_are_small_and_open_nothing(cifar10_dir):
  source = ReadableSource(open_source("cifar10", "test[2:]", cifar10_dir))
  last = source[9]  # Opens what it opens on first use.
  data = cloudpickle.dumps(source)
  assert len(data) < 20_000
  copy = cloudpickle.loads(data)
  assert (copy.name, copy.split) == ("cifar10", "test[2:]")
  assert copy.num_classes == 10
  assert len(copy) == 10
  assert copy.example_name(9) == "cifar10 test record 11"
  np.testing.assert_array_equal(copy[9]["image"], last["image"])
  assert copy[9]["label"] == last["label"]


def test_a_shard_that_is_cut_is_damage_and_not_the_storage(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (9, 99, 99, 3), np.uint8)
  features = {
    "image": tfds.features.Image(),
    "label": tfds.features.ClassLabel(num_classes=9),
  }
  images = [cv2.imencode(".png", image)[1].tobytes() for image in noise]
  examples = [{"image": image, "label": -1} for image in images]
  name = store(tmp_path, features, examples)
  source = ReadableSource(open_source(name, "holdout", str(tmp_path)))
  assert source.readable(0)
  assert source.file_of(0) is None
  assert source.unlabelled().tolist() == list(range(9))  # as by the labels
  (shard,) = tmp_path.rglob("*.array_record*")
  os.truncate(shard, shard.stat().st_size // 3)
  assert not source.readable(8)
  again = ReadableSource(open_source(name, "holdout", str(tmp_path)))
  assert not again.readable(8)
