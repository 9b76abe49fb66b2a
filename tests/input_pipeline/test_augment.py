import dataclasses

import grain
import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import augment

# Table 6 of the paper.
BOTH = {
  "crop_area": (0.08, 1.0),
  "crop_aspect": (3 / 4, 4 / 3),
  "crop_sampling": "clamped",
  "flip_probability": 0.5,
  "jitter_probability": 0.8,
  "brightness": 0.4,
  "brightness_mode": "add",
  "contrast": 0.4,
  "saturation": 0.2,
  "hue": 0.1,
  "grayscale_probability": 0.2,
  "blur_sigma": (0.1, 2.0),
  "solarize_threshold": 0.5,
}
VIEW1 = augment.View(**BOTH, blur_probability=1.0, solarize_probability=0.0)
VIEW2 = augment.View(**BOTH, blur_probability=0.1, solarize_probability=0.2)
MULTIPLIED = dataclasses.replace(
  VIEW2, brightness_mode="multiply", crop_sampling="retried"
)
# A view on which nothing happens but the resize of the whole image.
STILL = dataclasses.replace(
  VIEW1,
  crop_area=(1.0, 1.0),
  crop_aspect=(1.0, 1.0),
  flip_probability=0.0,
  jitter_probability=0.0,
  grayscale_probability=0.0,
  blur_probability=0.0,
)

N = 20_000
SIDE = 4000  # Of a square so large that whole pixels hardly matter:
PIXELS = 1e-3  # no area or log aspect is off by more.


def random_bytes(seed: int, height: int, width: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def columns(draws: list[augment.ViewDraw]) -> dict[str, np.ndarray]:
  """Field -> [N]; the box as its area fraction and log aspect."""
  out = {
    field: np.array([getattr(draw, field) for draw in draws])
    for field in augment.ViewDraw._fields
  }
  h, w = out.pop("box")[:, 2:].T
  return {**out, "area": h * w / SIDE**2, "log_aspect": np.log(w / h)}


@pytest.fixture(scope="module")
def draws() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """N draws of each view, alternating on one stream as in TwoViews."""
  rng = np.random.default_rng(2020)
  pairs = [
    [augment.sample_view(view, SIDE, SIDE, rng) for view in (VIEW1, VIEW2)]
    for _ in range(N)
  ]
  one, two = zip(*pairs, strict=True)
  return columns(one), columns(two)


def assert_binomial(hits: np.ndarray, probability: float):
  """The mean of the booleans is within four sigma of the probability."""
  sigma = np.sqrt(probability * (1 - probability) / len(hits))
  assert abs(np.mean(hits) - probability) <= 4 * sigma


def assert_uniform(
  values: np.ndarray, low: float, high: float, slack: float = 0.0
):
  """Reaches both ends, exceeds none, and Kolmogorov-Smirnov at p = 0.001."""
  span = high - low
  assert low - slack <= values.min() < low + 1e-3 * span
  assert high + slack >= values.max() > high - 1e-3 * span
  expected = low + span * (np.arange(len(values)) + 0.5) / len(values)
  distance = np.max(np.abs(np.sort(values) - expected)) / span
  assert distance < 1.95 / np.sqrt(len(values))


# What is drawn.


@pytest.mark.slow
@pytest.mark.parametrize(
  ("view", "field", "probability"),
  [
    (view, field, probability)
    for view in (0, 1)
    for field, probability in [
      ("flip", 0.5),
      ("jitter", 0.8),
      ("grayscale", 0.2),
      ("blur", (1.0, 0.1)[view]),
      ("solarize", (0.0, 0.2)[view]),
    ]
  ],
)
def test_application_rates(draws, view, field, probability):
  assert_binomial(draws[view][field], probability)


@pytest.mark.slow
@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize(
  ("field", "low", "high"),
  [
    ("brightness", -0.4, 0.4),
    ("contrast", 0.6, 1.4),
    ("saturation", 0.8, 1.2),
    ("hue", -0.1, 0.1),
    ("sigma", 0.1, 2.0),
  ],
)
def test_ranges(draws, view, field, low, high):
  assert_uniform(draws[view][field], low, high)


@pytest.mark.parametrize("view", [0, 1])
def test_all_orders_are_equally_likely(draws, view):
  orders, counts = np.unique(draws[view]["order"], axis=0, return_counts=True)
  assert np.all(np.sort(orders) == np.arange(4))
  assert len(orders) == 24
  chi_square = np.sum((counts - N / 24) ** 2 / (N / 24))
  assert chi_square < 49.7  # 23 degrees of freedom, p = 0.001.


@pytest.mark.parametrize("view", [0, 1])
def test_area_is_uniform_where_the_image_does_not_cut_it(draws, view):
  # Only boxes of more than 3/4 can be cut, and none falls below 3/4 by it.
  area = draws[view]["area"]
  uncut = area < 0.75
  assert_binomial(uncut, (0.75 - 0.08) / (1 - 0.08))
  assert_uniform(area[uncut], 0.08, 0.75, PIXELS)
  assert area.max() <= 1


def test_uncut_boxes_are_uniform_in_area_and_in_log_aspect():
  view = dataclasses.replace(VIEW1, crop_area=(0.08, 0.7))
  rng = np.random.default_rng(7)
  sample = columns(
    [augment.sample_view(view, SIDE, SIDE, rng) for _ in range(N)]
  )
  low, high = np.log(3 / 4), np.log(4 / 3)
  assert_uniform(sample["area"], 0.08, 0.7, PIXELS)
  assert_uniform(sample["log_aspect"], low, high, PIXELS)


def test_everything_drawn_is_independent(draws):
  """No two numbers of one view, nor of the two, are correlated."""
  table = np.array(
    [
      (column.argmax(-1) if field == "order" else column).astype(np.float64)
      for view in draws
      for field, column in view.items()
      if column.min() < column.max()
    ]
  )
  # All but the two thresholds, and view1's blur and solarize.
  assert len(table) == 2 * 14 - 4
  correlation = np.corrcoef(table) - np.eye(len(table))
  assert np.max(np.abs(correlation)) < 4.5 / np.sqrt(N)


@pytest.mark.parametrize("view", [0, 1])
def test_grayscale_does_not_depend_on_jitter(draws, view):
  jitter, grayscale = draws[view]["jitter"], draws[view]["grayscale"]
  assert_binomial(grayscale[jitter], 0.2)
  assert_binomial(grayscale[~jitter], 0.2)


@pytest.mark.parametrize("size", [(1, 1), (480, 640), (3, 900)])
@pytest.mark.parametrize("view", [VIEW1, VIEW2, STILL, MULTIPLIED])
def test_a_view_takes_eighteen_numbers(view, size):
  rng = np.random.default_rng(11)
  augment.sample_view(view, *size, rng)
  assert rng.random() == np.random.default_rng(11).random(19)[-1]


def test_a_setting_moves_only_its_own_number():
  one, two = (
    augment.sample_view(view, 480, 640, np.random.default_rng(5))
    for view in (VIEW1, dataclasses.replace(VIEW1, hue=0.05))
  )
  assert two.hue == pytest.approx(one.hue / 2)
  assert two == one._replace(hue=two.hue)


def test_brightness_is_multiplied_by_what_would_have_been_added():
  """By one and the same number, whose place in the order stays."""
  for seed in range(20):
    added, multiplied = (
      augment.sample_view(view, 50, 60, np.random.default_rng(seed))
      for view in (
        VIEW1,
        dataclasses.replace(VIEW1, brightness_mode="multiply"),
      )
    )
    assert multiplied.brightness == pytest.approx(1 + added.brightness)
    assert multiplied == added._replace(
      brightness=multiplied.brightness,
      order=tuple(4 if k == 0 else k for k in added.order),
    )


# What a draw does.


def oracle_view(image, draw, size) -> np.ndarray:
  """`apply_view` with TensorFlow's ops and a blur of shifted sums."""
  y, x, h, w = draw.box
  out = tf.image.resize(image[y : y + h, x : x + w], (size, size), "bicubic")
  out = np.clip(out / 255, 0, 1)
  if draw.flip:
    out = out[:, ::-1]
  if draw.jitter:
    ops = [
      lambda x: tf.image.adjust_brightness(x, draw.brightness),
      lambda x: tf.image.adjust_contrast(x, draw.contrast),
      lambda x: tf.image.adjust_saturation(x, draw.saturation),
      lambda x: tf.image.adjust_hue(x, draw.hue),
      lambda x: x * draw.brightness,
    ]
    for k in draw.order:
      out = np.clip(ops[k](out), 0, 1)
  if draw.grayscale:
    out = np.repeat(tf.image.rgb_to_grayscale(out), 3, axis=-1)
  if draw.blur:
    radius = size // 20
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / 2 / draw.sigma**2)
    for axis in (0, 1):
      width = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
      padded = np.pad(out, width)
      out = sum(
        tap * np.take(padded, range(k, k + size), axis)
        for k, tap in enumerate(taps / taps.sum())
      )
  if draw.solarize:
    out = np.where(out < draw.threshold, out, 1 - out)
  return np.rint(out * 255)


@pytest.mark.parametrize("view", [VIEW1, VIEW2, MULTIPLIED])
def test_apply_view_is_the_authors_sequence(view):
  # Solarize also after a blur, and often enough to see it.
  view = dataclasses.replace(view, solarize_probability=0.5)
  image, rng, exact = random_bytes(1, 61, 47), np.random.default_rng(3), []
  for _ in range(60):
    draw = augment.sample_view(view, 61, 47, rng)
    out = augment.apply_view(image, draw, 60)
    difference = np.abs(out - oracle_view(image, draw, 60))
    assert difference.max() <= 1  # A half that rounds the other way.
    exact.append(np.mean(difference == 0))
  assert np.mean(exact) > 0.999


def test_nothing_drawn_is_nothing_changed():
  image, rng = random_bytes(2, 32, 32), np.random.default_rng(0)
  draw = augment.sample_view(STILL, 32, 32, rng)
  np.testing.assert_array_equal(augment.apply_view(image, draw, 32), image)
  draw = draw._replace(flip=True)
  np.testing.assert_array_equal(
    augment.apply_view(image, draw, 32), image[:, ::-1]
  )


def test_an_identity_op_is_left_out():
  before = np.random.default_rng(4).random((3, 8, 8), dtype=np.float32)
  view = dataclasses.replace(STILL, brightness=0, contrast=0, hue=0)
  draw = augment.sample_view(view, 8, 8, np.random.default_rng(0))
  draw = draw._replace(jitter=True, saturation=1.0)
  planes = augment.change_colors(before.copy(), draw)
  np.testing.assert_array_equal(planes, before)
  planes = augment.change_colors(before.copy(), draw._replace(saturation=1.1))
  assert np.any(planes != before)


# The transforms.


def test_two_views_are_view1_then_view2_of_one_stream():
  image = random_bytes(5, 50, 70)
  example = {"image": image, "label": np.int32(3), "index": 17}
  views = augment.TwoViews(size=24, view1=VIEW1, view2=VIEW2)
  for seed in range(20):
    out = views.random_map(example, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    for name, view in (("view1", VIEW1), ("view2", VIEW2)):
      draw = augment.sample_view(view, 50, 70, rng)
      expected = augment.apply_view(image, draw, 24)
      np.testing.assert_array_equal(out[name], expected)
      assert out[name].dtype == np.uint8
    assert np.any(out["view1"] != out["view2"])
    assert set(out) == {"view1", "view2", "label", "index"}
    assert (out["label"], out["index"]) == (3, 17)
  assert set(example) == {"image", "label", "index"}


@pytest.mark.slow
def test_blur_and_solarize_are_not_swapped():
  """Seen on the pixels of a bright plane, through TwoViews."""
  n = 10_000
  # Blur darkens the corner; solarizing turns 200 into 55. The other ops and
  # the sigmas too small to see on bytes are out of the way.
  view1, view2 = (
    dataclasses.replace(
      STILL,
      blur_probability=view.blur_probability,
      blur_sigma=(0.5, 2.0),
      solarize_probability=view.solarize_probability,
    )
    for view in (VIEW1, VIEW2)
  )
  views = augment.TwoViews(size=20, view1=view1, view2=view2)
  example = {"image": np.full((20, 20, 3), 200, np.uint8), "label": 0}
  rng = np.random.default_rng(6)
  outs = [views.random_map(example, rng) for _ in range(n)]
  for name, blur, solarize in (("view1", 1.0, 0.0), ("view2", 0.1, 0.2)):
    images = np.stack([out[name][..., 0] for out in outs])
    assert_binomial(images[:, 10, 10] != images[:, 0, 0], blur)
    assert_binomial(images[:, 10, 10] < 100, solarize)


def test_grain_gives_each_example_its_own_reproducible_numbers():
  examples = [{"image": random_bytes(9, 40, 30), "label": k} for k in range(8)]
  views = augment.TwoViews(size=16, view1=VIEW1, view2=VIEW2)

  def run(seed):
    data = grain.MapDataset.source(examples).seed(seed).random_map(views)
    return [data[k] for k in range(8)]

  first, again, other = run(1), run(1), run(2)
  assert [out["label"] for out in first] == list(range(8))
  for a, b, c in zip(first, again, other, strict=True):
    np.testing.assert_array_equal(a["view1"], b["view1"])
    np.testing.assert_array_equal(a["view2"], b["view2"])
    assert np.any(a["view1"] != c["view1"])
  assert len({out["view2"].tobytes() for out in first}) == 8


def test_eval_crop_keeps_the_middle():
  image = random_bytes(8, 41, 64)
  out = augment.EvalCrop(size=35, ratio=0.875).map({"image": image, "label": 2})
  # int(0.875 * 41) = 35 pixels a side, so nothing is resampled.
  np.testing.assert_array_equal(out["image"], image[3:38, 15:50])
  assert out["label"] == 2
  smaller = augment.EvalCrop(size=21, ratio=0.875).map({"image": image})
  expected = tf.image.resize(image[3:38, 15:50], (21, 21), "bicubic")
  expected = np.rint(np.clip(expected, 0, 255))
  np.testing.assert_array_equal(smaller["image"], expected)


def test_a_config_section_makes_a_view():
  section = ml_collections.ConfigDict(dataclasses.asdict(VIEW2))
  assert augment.View(**section) == VIEW2
