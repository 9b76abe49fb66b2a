"""Augmentation on the devices against the host's, from the same draws."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from byol_flax import sharding
from byol_flax.pretrain import device_augment, inputs
from byol_flax.pretrain.places import Place
from configs import byol
from input_pipeline import (
  augment,
  image_ops,
  loading,
  pipeline,
  resident,
  sources,
)
from input_pipeline.errors import UsageError
from tests import float_ops
from tests.input_pipeline.test_image_ops import hard_colors
from tests.input_pipeline.test_pipeline import Numbered

# In one process of xdist, which makes what they share once.
pytestmark = pytest.mark.xdist_group("device_augment")

B, SIZE = 6, 40
SETTINGS = byol.get_config().augment
VIEWS = [
  # All that a view can draw, often; brightness in both ways.
  augment.View(
    **{
      **SETTINGS[name].to_dict(),
      "grayscale_probability": 0.3,
      "blur_probability": 0.5,
      "solarize_probability": 0.4,
      "brightness_mode": mode,
      "crop_sampling": sampling,
    }
  )
  for name, mode, sampling in (
    ("view1", "add", "clamped"),
    ("view2", "multiply", "retried"),
  )
]


def images(seed, count=B, height=SIZE, width=SIZE):
  rng = np.random.default_rng(seed)
  return rng.random((count, height, width, 3), dtype=np.float32)


def spread(low, high):
  return np.linspace(low, high, B, dtype=np.float32)


@pytest.mark.parametrize(
  ("name", "values"),
  [
    ("adjust_brightness", spread(-0.4, 0.4)),
    ("multiply_brightness", spread(0.2, 1.8)),
    ("adjust_contrast", spread(0.6, 1.4)),
    ("adjust_saturation", spread(0.0, 2.0)),
    ("adjust_hue", spread(-0.5, 0.5)),
    ("gaussian_blur", spread(0.1, 2.0)),
    ("solarize", spread(0.2, 0.8)),
  ],
)
def test_each_image_gets_its_own_number(name, values):
  batch = images(0)
  batch[0, 0, :3] = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.25]]
  op = jax.vmap(getattr(device_augment, name))
  out = op(jnp.asarray(batch), jnp.asarray(values))
  expected = [
    getattr(float_ops, name)(image, float(value))
    for image, value in zip(batch, values, strict=True)
  ]
  np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["adjust_saturation", "adjust_hue"])
def test_ties_and_grays(name):
  image = np.resize(hard_colors(), (41, 41, 3))
  value = 1.17 if name == "adjust_saturation" else -0.07
  out = getattr(device_augment, name)(jnp.asarray(image), jnp.float32(value))
  expected = getattr(float_ops, name)(image, value)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_grayscale():
  batch = images(1)
  expected = [float_ops.to_grayscale(image) for image in batch]
  out = jax.vmap(device_augment.to_grayscale)(jnp.asarray(batch))
  np.testing.assert_allclose(out, expected, atol=2e-6)


def test_a_packed_draw_is_the_draw():
  rng = np.random.default_rng(2)
  draws = [augment.sample_view(VIEWS[1], 60, 50, rng) for _ in range(40)]
  found = augment.unpack(np.stack([augment.pack(draw) for draw in draws]))
  for name, values in found._asdict().items():
    exact = np.array([getattr(draw, name) for draw in draws]).T
    np.testing.assert_allclose(np.array(values), exact, rtol=1e-6)
  assert len(set(found.order[0].tolist())) == 4
  assert 0 < np.mean(found.jitter) < 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(30, 47), (47, 30)])
@pytest.mark.parametrize("out_size", [16, 40])
def test_windows_of_padded_images(size, out_size):
  """Also of portraits, which are stored transposed."""
  rng = np.random.default_rng(3)
  height, width = size
  turned = height > width
  originals = rng.integers(0, 256, (B, height, width, 3), dtype=np.uint8)
  stored = originals.swapaxes(1, 2) if turned else originals
  padded = np.full((B, 33, 51, 3), 255, np.uint8)
  padded[:, : stored.shape[1], : stored.shape[2]] = stored
  draws = [augment.sample_view(VIEWS[0], *size, rng) for _ in range(B)]
  packed = np.stack([augment.pack(draw) for draw in draws])
  out = jax.vmap(
    lambda image, turned, packed: device_augment.crop(
      image, turned, augment.unpack(packed), out_size
    )
  )(padded, np.full(B, turned), packed)
  expected = [
    image_ops.crop_planes(image, draw.box, out_size, mirrored=draw.flip).T
    for image, draw in zip(originals, draws, strict=True)
  ]
  np.testing.assert_allclose(out, np.stack(expected), atol=5e-6)
  assert {draw.flip for draw in draws} == {True, False}


def batch_of(stream, count=64):
  rows = [stream[i] for i in range(count)]
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class Portraits(Numbered):
  """Noise of two shapes, so that some images are stored transposed."""

  def __getitem__(self, i):
    example = super().__getitem__(i)
    rng = np.random.default_rng(i)
    shape = (70, 50, 3) if i % 3 else (45, 61, 3)
    coarse = rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)
    return {**example, "image": np.resize(coarse.repeat(8, 0), shape)}


def transforms():
  for kind in (augment.TwoViews, augment.TwoCrops, augment.TwoDraws):
    yield kind(size=SIZE, view1=VIEWS[0], view2=VIEWS[1])


@pytest.fixture(scope="module")
def three_ways():
  """The same examples as finished views, as crops and as draws."""
  source = sources.ReadableSource(Portraits(20))
  views, crops, draws = transforms()
  whole = resident.load(source)
  batches = [
    batch_of(pipeline.view_stream(source, views, 7)),
    batch_of(pipeline.view_stream(source, crops, 7)),
    batch_of(resident.DrawStream(whole, draws, 7)),
  ]
  batches[2]["images"] = whole.images
  return batches


def test_draws_are_the_same_wherever_views_are_made(three_ways):
  views, crops, draws = three_ways
  np.testing.assert_array_equal(crops["draw"], draws["draw"])
  for batch in (crops, draws):
    np.testing.assert_array_equal(batch["label"], views["label"])


@pytest.mark.slow
@pytest.mark.parametrize(
  ("way", "place", "close"),
  [
    # Its crops are rounded once more, and contrast and hue magnify that.
    (1, Place.ACCELERATOR, 3),
    (2, Place.RESIDENT, 1),
  ],
)
def test_whole_views_are_the_hosts(three_ways, way, place, close):
  make_views = device_augment.make_views(place, size=SIZE, multiplies=True)
  found = np.asarray(jax.jit(make_views)(three_ways[way]))
  host = device_augment.make_views(Place.HOST, size=SIZE, multiplies=True)
  expected = np.asarray(host(three_ways[0]))
  assert found.dtype == np.uint8
  difference = np.abs(found.astype(int) - expected)
  assert difference.mean() < 0.3
  assert np.mean(difference <= close) > 0.999
  assert difference.max() <= 12
  assert len(np.unique(three_ways[0]["label"])) > 3


def test_every_image_of_a_resident_set_is_whole():
  source = sources.ReadableSource(Portraits(10))
  whole = resident.load(source)
  assert whole.images.shape == (10, 50, 70, 3)
  for i in range(10):
    height, width = whole.sizes[i]
    stored = whole.images[i]
    stored = stored.swapaxes(0, 1) if whole.turned[i] else stored
    np.testing.assert_array_equal(stored[:height, :width], source[i]["image"])
    assert stored[height:].max(initial=0) == 0
  assert len(set(whole.turned.tolist())) == 2


def test_images_of_one_shape_are_not_turned():
  class Tall(Numbered):
    def __getitem__(self, i):
      example = super().__getitem__(i)
      image = example["image"]
      if isinstance(image, bytes):
        return example
      return {**example, "image": image.repeat(3, axis=0)}

  whole = resident.load(sources.ReadableSource(Tall(4, broken=[2])))
  assert whole.images.shape == (4, 18, 7, 3)
  assert not whole.turned.any()
  assert whole.unreadable.tolist() == [-1, -1, 2, -1]


def test_digests_tell_draws_wherever_views_are_made(three_ways):
  for batch in three_ways:
    names = {"view1", "view2", "index", "draw", "label"} & set(batch)
    whole = pipeline.batch_digest(batch, 0)
    assert pipeline.batch_digest(batch, 1) != whole
    for name in names:
      changed = {**batch, name: np.roll(batch[name], 1, axis=0)}
      assert pipeline.batch_digest(changed, 0) != whole, name


def test_a_set_that_no_memory_holds_is_not_decoded():
  """A million photographs, of which a thousand headers must be enough."""
  encoded = io.BytesIO()
  Image.new("RGB", (2000, 2000)).save(encoded, "JPEG")

  class Million(Numbered):
    looked_at = 0

    def __getitem__(self, i):
      self.looked_at += 1
      # Its headers are whole; to decode it would be told as an error.
      return {"image": encoded.getvalue()[:-400] + b"\xff\xd9", "label": 0}

  source = Million(1_000_000)
  with pytest.raises(UsageError, match=r"at least .* for 1,000,000 images"):
    resident.load(
      sources.ReadableSource(source),
      lambda shape: inputs.check_room(shape, 2**40),
    )
  # However slow the reader is, cores do not run far ahead of it.
  assert source.looked_at < 100 * (2 + loading.available_cores())


def test_a_set_that_no_memory_holds_is_refused_before_there_is_any():
  """One large image among small ones: all would be padded to it."""

  class OneLarge(Numbered):
    def __getitem__(self, i):
      if i:
        return super().__getitem__(i)
      return {"image": np.zeros((9000, 8000, 3), np.uint8), "label": 0}

  config = byol.get_config()
  config.augment.cache = "device"
  config.batch_size = 8
  source = sources.ReadableSource(OneLarge(3000))
  with pytest.raises(UsageError, match=r"3,000 images.* 9000 × 8000\. There"):
    inputs.open_inputs(config, source, sharding.make_mesh())
