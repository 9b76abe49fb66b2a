"""FCN-16s: sizes, where its places lie, and its loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding, trees
from byol_flax.models import resnet, segmentation
from tests.evaluation import settings
from tests.models import dense_networks

RNG = np.random.default_rng(4)
VOID = 255

# Counted by hand from paper.md §7.1: two convolutions of 3×3 without bias, each
# with a BatchNorm of two numbers a channel, and 1×1 to 21 classes with bias.
#   2048 -> 256: 9 · 2048 · 256 = 4,718,592, and 512
#   256 -> 256:  9 · 256 · 256  =   589,824, and 512
#   256 -> 21:   256 · 21       =     5,376, and 21
HEAD = 4_718_592 + 512 + 589_824 + 512 + 5_376 + 21
ENCODER = 23_508_032  # that of pooled features


@pytest.mark.slow
@pytest.mark.parametrize(
  ("dilated", "sizes"),
  # paper.md §7.1; before them the stem has 257, and 129 after the pooling.
  [(True, (129, 65, 33, 33)), (False, (129, 65, 33, 17))],
)
def test_shapes_and_parameters_of_resnet50(dilated, sizes):
  encoder = dense_networks.resnet50(dilate_last=dilated)
  module = segmentation.Fcn(
    encoder, num_classes=21, batch_groups=1, frozen_norm=False
  )
  found, variables = jax.eval_shape(
    functools.partial(module.init_with_output, train=True),
    jax.random.key(0),
    jax.ShapeDtypeStruct((2, 513, 513, 3), jnp.uint8),
  )
  assert (found.shape, found.dtype) == ((2, 513, 513, 21), jnp.float32)
  assert trees.count(variables["params"]["head"]) == HEAD
  assert trees.count(variables["params"]["encoder"]) == ENCODER
  maps = dense_networks.map_shapes(encoder, variables, (513, 513))
  assert maps == [
    (size, size, channels)
    for size, channels in zip(sizes, (256, 512, 1024, 2048), strict=True)
  ]
  assert encoder.output_stride == (16 if dilated else 32)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_a_place_of_the_map_stands_for_the_pixel_at_its_centre(padding):
  """By the centre of mass of what each pixel adds to a place."""
  encoder = dense_networks.encoder(
    resnet.Architecture(
      bottleneck=False, blocks=(1,) * 4, channels=(2,) * 4, stem_channels=2
    ),
    padding=padding,
    input_scaling="unit",
    dilate_last=True,
  )
  size, place = 513, (10, 20)  # so far from the edges that nothing is cut off
  image = jnp.asarray(RNG.uniform(1, 255, (1, 1, size, size, 3)), jnp.float32)
  variables = jax.jit(functools.partial(encoder.init, train=False))(
    jax.random.key(0), image
  )
  # Positive weights pass all paths, which are as many on both sides.
  variables = {
    **variables,
    "params": jax.tree.map(jnp.ones_like, variables["params"]),
  }

  def value(image):
    (*_, found) = encoder.apply(
      variables, image, train=False, method="feature_maps"
    )
    return jnp.sum(found[0, 0, place[0], place[1]])

  slope = np.asarray(jax.jit(jax.grad(value))(image))[0, 0].sum(-1)
  centre = [
    np.average(np.arange(size), weights=np.abs(slope.sum(axis)))
    for axis in (1, 0)
  ]
  # Pooling takes one of nine pixels, at random.
  np.testing.assert_allclose(centre, np.multiply(place, 16), atol=1)


def enlarged_by_loops(scores, size, stride):
  found = np.zeros((*size, scores.shape[-1]))
  for y in range(size[0]):
    for x in range(size[1]):
      corner, share = [], []
      for pixel, places in zip((y, x), scores.shape, strict=False):
        at = min(pixel / stride, places - 1)
        corner.append(int(at))
        share.append(at - int(at))
      for i in (0, 1):
        for j in (0, 1):
          weight = (share[0] if i else 1 - share[0]) * (
            share[1] if j else 1 - share[1]
          )
          if weight:
            found[y, x] += weight * scores[corner[0] + i, corner[1] + j]
  return found


@pytest.mark.slow
def test_enlargement_is_that_of_loops():
  scores = RNG.normal(size=(1, 4, 3, 2)).astype(np.float32)
  for size in ((13, 9), (16, 11)):  # 4 · 3 + 1 and 4 · 2 + 1, and more
    np.testing.assert_allclose(
      segmentation.enlarge(scores, size, 4)[0],
      enlarged_by_loops(scores[0], size, 4),
      atol=1e-6,
    )


@pytest.mark.parametrize("devices", [1, 8])
def test_loss_is_the_mean_over_pixels_with_a_class(devices):
  logits = RNG.normal(0, 3, (8, 5, 7, 4)).astype(np.float32)
  classes = RNG.choice(
    [0, 1, 2, 3, VOID], (8, 5, 7), p=[0.4, 0.1, 0.1, 0.1, 0.3]
  )
  classes[2] = VOID  # images weigh as much as the pixels that they have
  given = {"logits": logits, "classes": classes.astype(np.uint8)}
  loss, accuracy = jax.jit(segmentation.cross_entropy)(
    **sharding.put_batch(settings.mesh_of(devices), given)
  )
  rows, labels = logits[classes != VOID].astype(float), classes[classes != VOID]
  p = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
  expected = -np.log(p[np.arange(len(labels)), labels]).mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(
    accuracy, np.mean(rows.argmax(-1) == labels), rtol=1e-6
  )


@pytest.mark.slow
def test_a_batch_without_classes_costs_nothing():
  logits = jnp.ones((1, 2, 2, 3))
  void = jnp.full((1, 2, 2), VOID, jnp.uint8)
  loss, slope = jax.value_and_grad(
    lambda x: segmentation.cross_entropy(x, void)[0]
  )(logits)
  assert loss == 0
  assert (np.asarray(slope) == 0).all()
