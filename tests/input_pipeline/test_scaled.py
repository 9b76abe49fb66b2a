"""JPEGs decoded at the scale that both crops allow."""

import dataclasses
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from byol_flax.pretrain import places
from configs import byol
from input_pipeline import augment, decoding, pipeline, scaled, sources
from input_pipeline.errors import UsageError
from tests.input_pipeline.test_augment import VIEW1, VIEW2
from tests.input_pipeline.test_decoding import exif

SIZE = 64
VIEWS = augment.TwoViews(size=SIZE, view1=VIEW1, view2=VIEW2)
CROPS = augment.TwoCrops(size=SIZE, view1=VIEW1, view2=VIEW2)


class Files:
  """Some image files, as a source."""

  name, split, fingerprint, ignored = "files", "all", "x", ""
  num_classes, class_names = 0, ()

  def __init__(self, *files):
    self.files = files

  def __len__(self):
    return len(self.files)

  def __getitem__(self, i):
    return {"image": self.files[i], "label": np.int32(-1)}

  def ahead(self, numbers):
    pass

  def example_name(self, i):
    return f"file {i}"


def photograph(height, width, seed=0):
  """Smooth, so that all scales of it look alike."""
  coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(pixels, form="JPEG", **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, form, quality=95, **options)
  return file.getvalue()


def examples(source, transform, scaled_decoding, count=12):
  stream = pipeline.view_stream(
    sources.ReadableSource(source),
    transform,
    seed=3,
    scaled_decoding=scaled_decoding,
  )
  return list(stream[:count])


LARGE = photograph(600, 800)
SIDEWAYS = np.ascontiguousarray(LARGE.swapaxes(0, 1)[::-1])


@pytest.mark.parametrize("transform", [VIEWS, CROPS])
@pytest.mark.parametrize(
  "data",
  [encode(LARGE), encode(SIDEWAYS, exif=exif(6))],
  ids=["upright", "turned by EXIF"],
)
def test_views_of_a_smooth_photograph_hardly_change(
  transform, data, monkeypatch
):
  sizes = set()
  decode = decoding.decode_image

  def seen(*arguments):
    image = decode(*arguments)
    sizes.add(image.shape[:2])
    return image

  monkeypatch.setattr(decoding, "decode_image", seen)
  source = Files(data)
  whole = examples(source, transform, scaled_decoding=False)
  assert sizes == {(600, 800)}
  reduced = examples(source, transform, scaled_decoding=True)
  assert {(300, 400), (150, 200)} <= sizes
  for one, other in zip(whole, reduced, strict=True):
    for name in ("view1", "view2"):
      difference = np.abs(one[name].astype(int) - other[name].astype(int))
      assert difference.mean() < 6  # half a pixel of the window, at most
    if transform is CROPS:  # all but the window, which is in other pixels
      np.testing.assert_array_equal(one["draw"][:, 4:], other["draw"][:, 4:])


@pytest.mark.slow
@pytest.mark.parametrize(
  "data",
  [
    encode(photograph(60, 80)),
    encode(LARGE, "PNG"),
    LARGE,
    encode(photograph(60, 80))[:-600] + b"\xff\xd9",
    b"no image",
  ],
  ids=["small", "PNG", "pixels", "damaged", "no image"],
)
def test_others_are_not_changed_at_all(data):
  """A function of the files and the number, whoever reads them."""
  files = Files(data, encode(photograph(50, 60, seed=1)))
  for transform in (VIEWS, CROPS):
    whole = examples(files, transform, scaled_decoding=False)
    reduced = examples(files, transform, scaled_decoding=True)
    for one, other in zip(whole, reduced, strict=True):
      assert one.keys() == other.keys()
      for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_no_crop_has_fewer_pixels_than_its_view():
  rng = np.random.default_rng(0)
  found = set()
  for _ in range(300):
    height, width = rng.integers(40, 3000, 2)
    draws = VIEWS.draw(height, width, rng)
    factor = scaled.allowed(draws, SIZE)
    found.add(factor)
    reduced = -(-height // factor), -(-width // factor)
    moved = scaled.on_reduced(draws, (height, width), reduced)
    for before, after in zip(draws, moved, strict=True):
      y, x, h, w = after.box
      assert 0 <= y <= y + h <= reduced[0]
      assert 0 <= x <= x + w <= reduced[1]
      if factor > 1:
        assert min(h, w) >= SIZE
      exact = np.array(before.box) / factor
      assert np.abs(np.array(after.box) - exact).max() <= 1.5
      assert after[1:] == before[1:]
  assert found == {1, 2, 4, 8}


def test_images_far_larger_than_their_views_are_told():
  large = sources.ReadableSource(Files(*5 * [encode(LARGE)], b"damaged"))
  views = dataclasses.replace(VIEWS, size=60)
  said = scaled.advice(large, views)
  assert "800 × 600" in said
  # At that size the least crop, 0.08 of the area at 3:4, has 60 pixels.
  assert "--longest-side=320`" in said
  assert scaled.least_side(VIEW1, 240, 320) > 60
  for size in (100, 224):
    other = dataclasses.replace(VIEWS, size=size)
    assert scaled.advice(large, other) == ""
  assert scaled.advice(sources.ReadableSource(Files(b"damaged")), views) == ""


def test_resident_images_are_decoded_once():
  config = byol.get_config()
  config.augment.cache = "device"
  config.augment.scaled_decoding = True
  with pytest.raises(UsageError, match="Leave out one of the two"):
    places.place_of(config.augment)
