"""Depth of NYU's MATLAB file, of folders and of TFDS."""

import cloudpickle
import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from input_pipeline import decoding, dense_sources, nyu, sources
from input_pipeline.errors import UsageError
from input_pipeline.faults import Kind
from tests.input_pipeline.test_tfds_sources import store

SIZE = (480, 640)


def frame(seed):
  """An image and its depth in metres, different in every row and column."""
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
  return image, rng.uniform(0.5, 10, SIZE).astype(np.float32)


def write_nyu(folder, frames, train, test):
  """Writes arrays as MATLAB 7.3 does: the last axis of MATLAB comes first."""
  images = np.stack([image for image, _ in frames], -1)  # [H, W, 3, N]
  depths = np.stack([depth for _, depth in frames], -1)  # [H, W, N]
  with h5py.File(folder / nyu.FRAMES, "w") as file:
    file["images"] = images.T
    file["depths"] = depths.T
  scipy.io.savemat(
    folder / nyu.SPLITS,
    {"trainNdxs": np.c_[train], "testNdxs": np.c_[test]},
  )


def test_nyu_is_read_along_the_right_axes(tmp_path):
  frames = [frame(seed) for seed in range(3)]
  write_nyu(tmp_path, frames, train=[1, 3], test=[2])
  for split, numbers in (("train", [0, 2]), ("test", [1]), ("train[1:]", [2])):
    source = dense_sources.open_depth(f"nyu:{tmp_path}", split)
    source = cloudpickle.loads(cloudpickle.dumps(source))
    assert len(source) == len(source.sizes) == len(numbers)
    for i, number in enumerate(numbers):
      image, depth = frames[number]
      np.testing.assert_array_equal(source[i]["image"], image)
      np.testing.assert_array_equal(source[i]["label"], depth)
      assert source[i]["label"].dtype == np.float32
      assert source.example_name(i).endswith(f"frame {number + 1}")


def test_mistakes_with_nyu_are_told(tmp_path):
  def message(split="train"):
    with pytest.raises(UsageError) as error:
      dense_sources.open_depth(f"nyu:{tmp_path}", split)
    return str(error.value)

  assert "not 'val'" in message("val")
  assert f"{nyu.FRAMES} is not there" in message()
  write_nyu(tmp_path, [frame(0)], train=[1, 2], test=[1])
  assert "do not belong together" in message()
  (tmp_path / nyu.SPLITS).write_bytes(b"MATLAB 5.0")
  assert "cannot be read so" in message()
  with h5py.File(tmp_path / nyu.FRAMES, "w") as file:  # not transposed
    file["images"] = np.zeros((1, 3, *SIZE), np.uint8)
    file["depths"] = np.zeros((1, *SIZE), np.float32)
  assert "(1, 3, 640, 480)" in message()
  (tmp_path / nyu.FRAMES).write_bytes(b"no HDF5")
  assert "MATLAB 7.3" in message()


def write(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def folder(tmp_path):
  """Holds the frames good and bad; bad has no depth yet."""
  millimetres = np.random.default_rng(0).integers(1, 9000, SIZE, np.uint16)
  millimetres[:3] = [[0], [65535], [4000]]
  for name in ("good", "bad"):
    write(tmp_path / f"train/{name}.png", frame(1)[0][..., ::-1])
  write(tmp_path / "train/good.depth.png", millimetres)
  return tmp_path, millimetres


def test_a_depth_folder_is_in_metres_and_zero_where_not_valid(folder):
  root, millimetres = folder
  write(root / "train/bad.depth.png", millimetres)
  source = dense_sources.open_depth(f"depth:{root}", "train")
  assert [source.file_name(i) for i in range(2)] == ["bad.png", "good.png"]
  depth = source[0]["label"]
  assert depth.dtype == np.float32
  assert not depth[:2].any()
  np.testing.assert_allclose(depth[2:], millimetres[2:] / 1000, rtol=1e-6)
  image = decoding.decode_image(source[0]["image"])
  np.testing.assert_array_equal(image, frame(1)[0])
  assert not source.faults


@pytest.mark.parametrize(
  ("kind", "pixels"),
  [
    (Kind.DEPTH_MISSING, None),
    (Kind.DEPTH_DAMAGED, np.zeros(SIZE, np.uint8)),
    (Kind.DEPTH_DAMAGED, np.zeros(SIZE[::-1], np.uint16)),
    (Kind.DEPTH_DAMAGED, np.zeros((*SIZE, 3), np.uint16)),
    (Kind.DEPTH_INVALID, np.full(SIZE, 65535, np.uint16)),
  ],
)
def test_faults_of_depth_files(folder, kind, pixels):
  root, _ = folder
  if pixels is not None:
    write(root / "train/bad.depth.png", pixels)
  source = dense_sources.open_depth(f"depth:{root}", "train")
  assert source.faults == {kind.what: ("bad.png",)}
  assert len(source) == (2 if kind is Kind.DEPTH_INVALID else 1)


def test_a_frame_of_another_size_and_a_depth_damaged_later(folder):
  root, _ = folder
  write(root / "train/bad.png", frame(1)[0][:-1])
  source = dense_sources.open_depth(f"depth:{root}", "train")
  assert source.faults == {Kind.FRAME_SIZE.what: ("bad.png",)}
  (root / "train/good.depth.png").write_bytes(b"")
  with pytest.raises(sources.NoneReadableError, match="is damaged"):
    sources.ReadableSource(source)[0]
  with pytest.raises(UsageError, match="no folder"):
    dense_sources.open_depth(f"depth:{root}", "val")


def test_tfds_has_depth_in_half_precision(tmp_path):
  image, depth = frame(5)
  depth[0, :3] = [0, -1, np.inf]
  name = store(
    tmp_path,
    {
      "image": tfds.features.Image(shape=(*SIZE, 3)),
      "depth": tfds.features.Tensor(shape=SIZE, dtype=np.float16),
    },
    [{"image": image, "depth": depth.astype(np.float16)}],
    name="nyu_depth_v2",
  )
  source = dense_sources.open_depth(name, "holdout", str(tmp_path))
  source = cloudpickle.loads(cloudpickle.dumps(source))
  label = source[0]["label"]
  assert label.dtype == np.float32
  assert not label[0, :3].any()
  expected = depth.astype(np.float16).astype(np.float32)
  np.testing.assert_array_equal(label.ravel()[3:], expected.ravel()[3:])
  decoded = sources.ReadableSource(source)[0]["image"]
  np.testing.assert_array_equal(decoded, image)
  with pytest.raises(UsageError, match="should have boxes"):
    dense_sources.open_boxes(name, "holdout", str(tmp_path))
