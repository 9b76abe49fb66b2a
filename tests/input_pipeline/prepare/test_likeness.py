"""Hashes of content and looks."""

import cv2
import numpy as np
import pytest

from input_pipeline.prepare import array_records, likeness
from input_pipeline.prepare.likeness import Hashes
from tests.input_pipeline.prepare.test_prepare import picture


def distance(a, b):
  return int(
    np.bitwise_count(likeness.look_hash(a) ^ likeness.look_hash(b)).sum()
  )


@pytest.mark.parametrize("seed", range(6))
def test_small_changes_turn_few_bits(seed):
  image = picture(seed, size=(240, 320))
  small = cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)
  _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])
  brighter = np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8)
  for changed in (small, cv2.imdecode(data, 1), brighter):
    assert distance(image, changed) <= likeness.CLOSE


def test_other_images_are_far():
  images = [picture(seed) for seed in range(40)]
  distances = [distance(a, b) for i, a in enumerate(images) for b in images[:i]]
  assert min(distances) > 2 * likeness.CLOSE
  assert 50 < np.mean(distances) < 78


def test_flat_images_are_like_nothing():
  flat = np.full((30, 40, 3), 130, np.uint8)
  hashed = likeness.look_hash(flat)[None]
  content = np.arange(4, dtype=np.uint64).reshape(2, 2)
  found = likeness.common(
    Hashes(content[:1], hashed), Hashes(content[1:], hashed)
  )
  assert found == []


def test_duplicates_name_the_first():
  content = np.array([[1, 2], [3, 4], [1, 2], [3, 5], [1, 2]], np.uint64)
  assert likeness.duplicates(content) == [(2, 0), (4, 0)]


def test_common_is_exhaustive(monkeypatch):
  """Against a loop, over several tiles of queries and bank."""
  monkeypatch.setattr(likeness, "_QUERIES", 7)
  monkeypatch.setattr(likeness, "_BANK", 11)
  rng = np.random.default_rng(0)
  ours, theirs = (
    Hashes(*rng.integers(1, 2**63, (2, n, 2)).astype(np.uint64))
    for n in (30, 45)
  )
  for i, j, bits in ((3, 40, 0), (8, 2, 10), (9, 12, 11), (29, 44, 4)):
    mask = np.zeros(128, np.uint8)
    mask[rng.permutation(128)[:bits]] = 1
    flips = np.packbits(mask).view(np.uint64)
    ours.look[i] = theirs.look[j] ^ flips
  ours.content[20] = theirs.content[7]
  found = likeness.common(ours, theirs)
  assert found == [(3, 40, 0), (8, 2, 10), (20, 7, -1), (29, 44, 4)]


def test_records_are_tensorflows_examples(tmp_path):
  tf = pytest.importorskip("tensorflow")
  data = bytes(range(256)) * 999
  encoded = array_records.encode(
    {"image": data, "label": 300, "other": -1, "a": b""}
  )
  example = tf.train.Example.FromString(encoded).features.feature
  assert set(example) == {"image", "label", "other", "a"}
  assert example["image"].bytes_list.value == [data]
  assert example["a"].bytes_list.value == [b""]
  assert example["label"].int64_list.value == [300]
  assert example["other"].int64_list.value == [-1]
  assert array_records.encode({"b": 1, "a": 2}) == array_records.encode(
    {"a": 2, "b": 1}
  )
