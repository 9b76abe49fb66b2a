"""Folders with boxes: what is read, and what becomes of every fault."""

import pathlib

import cloudpickle
import numpy as np
import pytest

from input_pipeline import dense_sources, sources, voc_annotations, voc_classes
from input_pipeline.errors import UsageError
from input_pipeline.faults import Kind
from tests.input_pipeline.voc_folders import (
  HEIGHT,
  WIDTH,
  annotation,
  thing,
  write_boxes,
  write_image,
  write_list,
)

BOMB = (
  '<!DOCTYPE a [<!ENTITY b "cat"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
  + annotation(thing(name="&c;"))
)
DIFFICULT = "<difficult>1</difficult>"
# A fault -> what is written for the image `bad` (None: no annotation), and the
# boxes that stay, or None if the image is left out.
FAULTS = {
  Kind.ANNOTATION_MISSING: (None, None),
  Kind.ANNOTATION_MALFORMED: ("<annotation><object>", None),
  Kind.SIZE_DISAGREES: (annotation(thing(), size=(WIDTH, HEIGHT)), None),
  Kind.BOX_MALFORMED: (
    annotation(thing(("nan", 1, 2, 3)), thing(("", 1, 2, 3))),
    [],
  ),
  Kind.BOX_WITHOUT_AREA: (
    annotation(thing((5, 5, 5, 9)), thing(), thing((9, 9, 7, 12))),
    [(10, 5, 30, 25, 0, 0)],
  ),
  Kind.BOX_OUTSIDE: (
    annotation(thing((WIDTH + 1, 1, WIDTH + 9, 9)), thing((-9, 1, 0, 9))),
    [],
  ),
  Kind.BOX_REACHES_OUTSIDE: (
    annotation(thing((0, -3, WIDTH + 7, 9.5)), thing((1, 1, WIDTH, HEIGHT))),
    [(0, 0, WIDTH, 9.5, 0, 0), (0, 0, WIDTH, HEIGHT, 0, 0)],
  ),
  Kind.CLASS_UNDECLARED: (
    annotation(thing(name="cow"), thing(name="dog")),
    [(10, 5, 30, 25, 1, 0)],
  ),
  Kind.NO_OBJECTS: (annotation(), []),
  Kind.DIFFICULT: (
    annotation(thing(extra=DIFFICULT), thing(extra="<pose>1</pose>")),
    [(10, 5, 30, 25, 0, 1), (10, 5, 30, 25, 0, 0)],
  ),
}
TIMES = {Kind.BOX_WITHOUT_AREA: 2, Kind.BOX_OUTSIDE: 2, Kind.BOX_MALFORMED: 2}


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  """Holds a sound image, `good`, and an image `bad` without annotation."""
  root = tmp_path / "VOC2007"
  for name in ("good", "bad"):
    write_image(root, f"{name}.jpg")
  write_boxes(root, "good", annotation(thing(name="dog")))
  write_list(root, "Main", "train", ["bad", "good"])
  (root / "classes.txt").write_text("cat\ndog\n")
  return root


def open_boxes(root, split="train", classes_file=None):
  if classes_file is None:
    classes_file = str(root / "classes.txt")
  return dense_sources.open_boxes(f"voc:{root}", split, None, classes_file)


def names(source):
  return [source.file_name(i).partition(".")[0] for i in range(len(source))]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_counted_and_named(root, kind):
  text, expected = FAULTS[kind]
  if text is not None:
    write_boxes(root, "bad", text)
  source = open_boxes(root)
  assert source.faults[kind.what] == ("bad",) * TIMES.get(kind, 1)
  assert f"{kind.what}: {TIMES.get(kind, 1)} ({kind.then}; bad)" in (
    source.ignored
  )
  assert names(source) == (["good"] if expected is None else ["bad", "good"])
  if expected is not None:
    boxes = source[0]["label"]
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, np.reshape(expected, (-1, 6)))
    only = {kind.what, Kind.NO_OBJECTS.what} if not expected else {kind.what}
    assert source.faults.keys() == only
  np.testing.assert_array_equal(
    source[len(source) - 1]["label"], [(10, 5, 30, 25, 1, 0)]
  )


def test_images_that_are_missing_or_damaged(root):
  (root / "JPEGImages/bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
  write_list(root, "Main", "train", ["bad", "gone", "good"])
  source = open_boxes(root)
  assert names(source) == ["good"]
  assert source.faults == {
    Kind.IMAGE_DAMAGED.what: ("bad",),
    Kind.IMAGE_MISSING.what: ("gone",),
  }


@pytest.mark.parametrize(
  "data",
  [
    BOMB.encode(),
    BOMB.encode("utf-16"),
    annotation(thing()).encode("utf-16"),
    b"<!-- " + b" " * 2**24 + b"--><annotation/>",
    b"<?xml version='1.0' encoding='nowhere'?><annotation/>",
    b"",
  ],
  ids=["bomb", "hidden bomb", "utf-16", "large", "encoding", "empty"],
)
def test_hostile_annotations_are_refused(data):
  with pytest.raises(voc_annotations.MalformedError):
    voc_annotations.parse(data)


def test_an_annotation_without_a_size_is_taken_as_it_is(root):
  write_boxes(root, "bad", annotation(thing(), size=(0, 0)))
  assert not open_boxes(root).faults


def test_parts_of_an_object_are_no_boxes_of_it(root):
  part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
  write_boxes(root, "bad", annotation(thing(extra=part)))
  source = open_boxes(root)
  np.testing.assert_array_equal(source[0]["label"], [(10, 5, 30, 25, 0, 0)])


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_boxes_count_in_the_upright_image(root, ending):
  write_image(root, f"turned.{ending}", orientation=6)  # a quarter turn
  write_image(root, f"stored.{ending}", orientation=6)
  upright = (WIDTH, HEIGHT)
  write_boxes(root, "turned", annotation(thing((1, 1, 9, 55)), size=upright))
  write_boxes(root, "stored", annotation(thing()))
  write_list(root, "Main", "train", ["turned", "stored"])
  source = open_boxes(root)
  assert names(source) == ["turned"]
  assert source.faults == {Kind.SIZE_DISAGREES.what: ("stored",)}
  image = sources.ReadableSource(source)[0]["image"]
  assert image.shape[:2] == upright == tuple(source.sizes[0])


def test_lists_may_have_signs_endings_and_paths(root):
  for name in ("a b", "2007_1"):
    write_image(root, f"{name}.png")
    write_boxes(root, name, annotation(thing()))
  lines = ["good  1", "a b -1", "/JPEGImages/2007_1.jpg /Seg/2007_1.png", ""]
  write_list(root, "Main", "cat_train", [*lines, "good.jpg"])
  assert names(open_boxes(root, "cat_train")) == ["good", "a b", "2007_1"]


def test_a_name_that_ends_like_a_sign_is_a_name_if_there_is_such_an_image(root):
  for name in ("photo 0", "photo 1"):
    write_image(root, f"{name}.png")
    write_boxes(root, name, annotation(thing()))
  write_list(root, "Main", "photos", ["photo 0", "photo 1", "good 1"])
  assert names(open_boxes(root, "photos")) == ["photo 0", "photo 1", "good"]


@pytest.mark.parametrize(
  ("found", "expected"),
  [
    (["dog", "cat"], voc_classes.OBJECTS),
    (["dog", "Cat"], ("Cat", "dog")),
  ],
)
def test_classes_come_from_all_annotations(root, found, expected):
  write_boxes(root, "bad", annotation(*(thing(name=x) for x in found)))
  write_boxes(root, "unlisted", BOMB)
  source = open_boxes(root, "train", "")
  assert source.class_names == expected
  assert source.num_classes == len(expected)
  assert [expected[int(x[4])] for x in source[0]["label"]] == found


def test_slices_workers_and_fingerprints(root):
  write_boxes(root, "bad", annotation(thing()))
  whole = open_boxes(root)
  part = open_boxes(root, "train[50%:]")
  assert names(part) == ["good"]
  np.testing.assert_array_equal(part.sizes, [(HEIGHT, WIDTH)])
  sent = cloudpickle.loads(cloudpickle.dumps(whole))
  for i in range(2):
    np.testing.assert_array_equal(sent[i]["label"], whole[i]["label"])
  assert open_boxes(root).fingerprint == whole.fingerprint
  write_boxes(root, "bad", annotation(thing((11, 6, 30, 26))))
  assert open_boxes(root).fingerprint != whole.fingerprint


def test_mistakes_are_told(root):
  (root / "twice.txt").write_text("cat\ncat\n")
  write_list(root, "Main", "none", ["bad"])
  with pytest.raises(UsageError, match="It has none, train"):
    open_boxes(root, "val")
  with pytest.raises(UsageError, match="comes twice"):
    open_boxes(root, "train", str(root / "twice.txt"))
  with pytest.raises(UsageError, match="no example that can be used: images"):
    open_boxes(root, "none")
  with pytest.raises(UsageError, match=f"Did you mean {root}"):
    dense_sources.open_boxes(f"voc:{root.parent}", "train")
  with pytest.raises(UsageError, match="should be voc:PATH"):
    dense_sources.open_boxes(f"depth:{root}", "train")
