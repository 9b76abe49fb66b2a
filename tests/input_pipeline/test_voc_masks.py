"""Folders with masks: what is read, and what becomes of every fault."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from input_pipeline import dense_sources, sources, voc_classes
from input_pipeline.errors import UsageError
from input_pipeline.faults import Kind
from tests.input_pipeline.voc_folders import (
  HEIGHT,
  WIDTH,
  palette_png,
  png,
  write_bytes,
  write_image,
  write_list,
  write_text,
)


def classes_of(seed=0, most=21, size=(HEIGHT, WIDTH)):
  return np.random.default_rng(seed).integers(0, most, size, np.uint8)


CLASSES = classes_of()
WITH_VOID = np.where(np.arange(WIDTH) < 5, np.uint8(255), CLASSES)
UNDECLARED = np.where(np.arange(WIDTH) < 5, np.uint8(21), CLASSES)
COLORS = voc_classes.palette()[WITH_VOID]
OTHER_COLORS = COLORS + np.uint8(1)
# A fault -> the mask's file (None: there is none), and what is read of it, or
# None if the image is left out.
FAULTS = {
  Kind.MASK_MISSING: (None, None),
  Kind.MASK_DAMAGED: (palette_png(CLASSES)[:-40], None),
  Kind.MASK_SIZE: (palette_png(CLASSES.T), None),
  Kind.MASK_MODE: (png(Image.fromarray(OTHER_COLORS)), None),
  Kind.MASK_UNDECLARED: (palette_png(UNDECLARED), WITH_VOID),
  Kind.MASK_VOID: (palette_png(WITH_VOID), WITH_VOID),
}


@pytest.fixture
def root(tmp_path):
  for name in ("good", "bad"):
    write_image(tmp_path, f"{name}.jpg")
  write_bytes(tmp_path, "SegmentationClass/good.png", palette_png(CLASSES))
  write_list(tmp_path, "Segmentation", "train", ["bad", "good"])
  return tmp_path


def open_classes(root, split="train", classes_file=""):
  return dense_sources.open_classes(f"voc:{root}", split, None, classes_file)


def names(source):
  return [source.file_name(i).partition(".")[0] for i in range(len(source))]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_counted_and_named(root, kind):
  data, expected = FAULTS[kind]
  if data is not None:
    write_bytes(root, "SegmentationClass/bad.png", data)
  source = open_classes(root)
  assert source.faults == {kind.what: ("bad",)}
  assert names(source) == (["good"] if expected is None else ["bad", "good"])
  if expected is not None:
    np.testing.assert_array_equal(source[0]["label"], expected)
    assert source[0]["label"].dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "LA", "I;16"])
def test_modes(root, mode):
  pixels = {
    "L": CLASSES,
    "1": CLASSES > 9,
    "RGB": COLORS,
    "RGBA": np.insert(COLORS, 3, 255, -1),
    "LA": np.stack([CLASSES, CLASSES], -1),
    "I;16": CLASSES.astype(np.uint16),
  }[mode]
  image = Image.fromarray(pixels)
  assert image.mode == mode
  write_bytes(root, "SegmentationClass/bad.png", png(image))
  source = open_classes(root)
  if mode in ("LA", "I;16"):
    assert source.faults == {Kind.MASK_MODE.what: ("bad",)}
  else:
    expected = WITH_VOID if mode.startswith("RGB") else pixels
    np.testing.assert_array_equal(source[0]["label"], expected)


def test_the_palette_is_that_of_the_development_kit():
  colors = voc_classes.palette()
  assert colors[[0, 1, 2, 15, 20, 255]].tolist() == [
    *([0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128]),
    *([0, 64, 128], [224, 224, 192]),
  ]
  assert len(np.unique(colors, axis=0)) == 256


def test_a_mask_is_that_of_the_upright_image(root):
  write_image(root, "bad.jpg", orientation=6)
  write_bytes(root, "SegmentationClass/bad.png", palette_png(CLASSES.T))
  source = open_classes(root)
  example = sources.ReadableSource(source)[0]
  assert example["image"].shape[:2] == example["label"].shape == (WIDTH, HEIGHT)


def test_classes_come_from_the_folder_or_a_file(root):
  assert open_classes(root).class_names == voc_classes.OF_MASKS
  write_text(root, "classes.txt", "sky\nroad\n")
  source = open_classes(root)
  assert source.class_names == ("sky", "road")
  expected = np.where(CLASSES < 2, CLASSES, 255)
  np.testing.assert_array_equal(source[0]["label"], expected)
  write_text(root, "three.txt", "a\nb\nc\n")
  assert open_classes(root, "train", str(root / "three.txt")).num_classes == 3


def test_a_name_that_ends_like_a_sign_is_a_name_if_there_is_such_an_image(root):
  write_image(root, "photo 1.jpg")
  write_bytes(root, "SegmentationClass/photo 1.png", palette_png(CLASSES))
  write_list(root, "Segmentation", "photos", ["photo 1", "good"])
  assert len(open_classes(root, "photos")) == 2


def test_a_mask_that_is_damaged_later_has_a_stand_in(root):
  for name in ("good", "bad"):
    file = f"SegmentationClass/{name}.png"
    write_bytes(root, file, palette_png(classes_of(len(name))))
  source = sources.ReadableSource(open_classes(root))
  for data in (b"", palette_png(CLASSES.T)):
    write_bytes(root, "SegmentationClass/bad.png", data)
    example = source[0]
    assert example["unreadable"] == 0
    np.testing.assert_array_equal(example["label"], classes_of(4))


def write_matlab(path, classes):
  path.parent.mkdir(parents=True, exist_ok=True)
  content = {"Segmentation": classes, "Boundaries": np.zeros(3)}
  scipy.io.savemat(path, {"GTcls": content})


@pytest.fixture
def augmented(root):
  """Lists good for train and val for val, and has images of two others."""
  for name in ("val", "x1", "x2"):
    write_image(root, f"{name}.jpg")
  write_list(root, "Segmentation", "train", ["good"])
  write_list(root, "Segmentation", "val", ["val"])
  return root


@pytest.mark.parametrize("place", ["", "..", "../.."])
def test_train_aug_of_sbds_own_files(augmented, place, tmp_path):
  root = tmp_path / "a" / "b"
  root.parent.mkdir()
  root.symlink_to(augmented)  # so that "../.." is a folder of this test's
  folder = {"": root, "..": root.parent, "../..": root.parent.parent}[place]
  for seed, name in enumerate(["x1", "val", "good"]):
    file = folder / f"benchmark_RELEASE/dataset/cls/{name}.mat"
    write_matlab(file, classes_of(7 + seed))
  source = open_classes(root, "train_aug")
  assert names(source) == ["good", "x1"]
  np.testing.assert_array_equal(source[0]["label"], CLASSES)  # VOC's own
  np.testing.assert_array_equal(source[1]["label"], classes_of(7))
  assert "benchmark_RELEASE/dataset/cls" in source.ignored
  assert not source.faults


def test_train_aug_of_png_files(augmented):
  for seed, name in enumerate(["x1", "val", "x2"]):
    file = f"SegmentationClassAug/{name}.png"
    write_bytes(augmented, file, png(Image.fromarray(classes_of(7 + seed))))
  source = open_classes(augmented, "train_aug[:100%]")
  assert names(source) == ["good", "x1", "x2"]
  write_list(augmented, "Segmentation", "trainaug", ["x2", "val", "good"])
  source = open_classes(augmented, "train_aug")
  assert names(source) == ["x2", "good"]
  np.testing.assert_array_equal(source[0]["label"], classes_of(9))
  assert "trainaug.txt" in source.ignored


def test_a_damaged_matlab_file_is_a_fault(augmented):
  folder = augmented / "benchmark_RELEASE/dataset/cls"
  write_matlab(folder / "x1.mat", CLASSES)
  (folder / "x2.mat").write_bytes((folder / "x1.mat").read_bytes()[:300])
  source = open_classes(augmented, "train_aug")
  assert names(source) == ["good", "x1"]
  assert source.faults == {Kind.MASK_DAMAGED.what: ("x2",)}


def test_train_aug_without_sbd_tells_where_to_put_it(augmented):
  with pytest.raises(UsageError, match=r"SegmentationClassAug.*unpack"):
    open_classes(augmented, "train_aug")


def test_tfds_has_no_masks():
  with pytest.raises(UsageError, match="should be voc:PATH"):
    dense_sources.open_classes("voc/2012", "train")
