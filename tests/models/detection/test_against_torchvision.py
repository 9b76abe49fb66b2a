"""The small functions against torchvision's, which CI does not have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.models.detection import (
  anchors,
  box_head,
  boxes,
  matching,
  nms,
  roi_align,
  rpn,
  settings,
)
from tests.models.detection import made

torchvision = pytest.importorskip(
  "torchvision", reason="the extra `bench` brings it"
)
torch = pytest.importorskip("torch", reason="the extra `bench` brings it")


def test_overlaps():
  some, others = made.boxes(40, seed=0), made.boxes(60, seed=1)
  expected = torchvision.ops.box_iou(torch.tensor(some), torch.tensor(others))
  # Both have no area; torchvision divides 0 by 0.
  expected = np.nan_to_num(expected.numpy())
  found = boxes.pairwise_overlaps(some, others)
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("weights", [(10.0, 10.0, 5.0, 5.0), (1.0,) * 4])
def test_box_coding(weights):
  from torchvision.models.detection._utils import BoxCoder

  coder = BoxCoder(weights)
  some = made.boxes(50, seed=2, empty=0)
  others = made.boxes(50, seed=3, empty=0)
  expected = coder.encode_single(torch.tensor(others), torch.tensor(some))
  found = boxes.encode(some, others, weights)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  # Deltas that would make boxes larger than the limit, too.
  deltas = np.random.default_rng(4).normal(0, 9, (50, 4)).astype(np.float32)
  expected = coder.decode_single(torch.tensor(deltas), torch.tensor(some))
  found = boxes.decode(some, deltas, weights)
  scale = np.abs(expected.numpy()).max()
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * scale)


def test_clip():
  some = made.boxes(50, seed=5)
  expected = torchvision.ops.clip_boxes_to_image(torch.tensor(some), (50, 70))
  np.testing.assert_array_equal(
    boxes.clip(jnp.asarray(some), jnp.array([50, 70])), expected
  )


def test_anchors_are_theirs_but_for_rounding_and_order():
  from torchvision.models.detection.anchor_utils import AnchorGenerator
  from torchvision.models.detection.image_list import ImageList

  sizes, ratios = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
  images = ImageList(torch.zeros(1, 3, 48, 80), [(48, 80)])
  (expected,) = AnchorGenerator((sizes,), (ratios,))(
    images, [torch.zeros(1, 8, 3, 5)]
  )
  ours = anchors.make_anchors((3, 5), stride=16, sizes=sizes, ratios=ratios)
  # [places, sizes, ratios, 4] -> theirs.
  ordered = np.swapaxes(ours.reshape(15, 5, 3, 4), 1, 2)
  np.testing.assert_array_equal(
    np.round(ordered).reshape(-1, 4), expected.numpy()
  )
  # Squares of even sides have whole edges, so nothing is rounded.
  np.testing.assert_array_equal(
    ordered[:, 1], expected.numpy().reshape(15, 3, 5, 4)[:, 1]
  )


@pytest.mark.parametrize("best_too", [False, True])
def test_matching(best_too):
  from torchvision.models.detection._utils import Matcher

  # Whole pixels, so that many overlaps are equal.
  true = np.round(made.boxes(7, seed=6, empty=0) / 10) * 10
  true[:, 2:] += 10
  some = np.round(made.boxes(300, seed=7, empty=0) / 10) * 10
  some[:, 2:] += 10
  overlaps = np.asarray(boxes.pairwise_overlaps(true, some))
  assert overlaps.max(1).min() > 0
  expected = Matcher(0.6, 0.3, best_too)(torch.tensor(overlaps)).numpy()
  found = matching.match(
    jnp.asarray(overlaps),
    true=jnp.ones(7, bool),
    counts=jnp.ones(300, bool),
    positive=0.6,
    negative=0.3,
    best_too=best_too,
  )
  kind = np.where(expected == -1, 0, np.where(expected == -2, -1, 1))
  assert set(kind) == {-1, 0, 1}
  np.testing.assert_array_equal(found.kind, kind)
  positive = kind == 1
  np.testing.assert_array_equal(
    np.asarray(found.truth)[positive], expected[positive]
  )


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("shift", [0, -200])
def test_suppression(threshold, shift):
  some = made.boxes(400, seed=8) + np.float32(shift)
  rng = np.random.default_rng(9)
  scores = (rng.integers(0, 40, 400) / 40).astype(np.float32)  # many are equal
  label = rng.integers(0, 3, 400)
  keep = jax.jit(
    functools.partial(nms.suppress, threshold=threshold, number=400)
  )
  tensors = torch.tensor(some), torch.tensor(scores)
  expected = torchvision.ops.nms(*tensors, threshold).numpy()
  index, found = keep(some, scores)
  np.testing.assert_array_equal(np.asarray(index)[found], expected)
  # By class: theirs moves the boxes of each class to a place of its own.
  apart = tensors[0] + 1000 * torch.tensor(label)[:, None]
  expected = torchvision.ops.nms(apart, tensors[1], threshold).numpy()
  index, found = keep(some, scores, label=label)
  np.testing.assert_array_equal(np.asarray(index)[found], expected)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_roi_align(samples):
  maps = np.random.default_rng(10).normal(size=(2, 6, 9, 5))
  maps = maps.astype(np.float32)
  # The map covers 144 × 96 pixels; boxes reach far outside of it.
  rois = np.stack([made.boxes(70, seed=11), made.boxes(70, seed=12)]) * 2 - 60
  rois[:, 0] = [50, 40, 50.001, 40.001]  # tiny
  expected = torchvision.ops.roi_align(
    torch.tensor(maps.transpose(0, 3, 1, 2)),
    [torch.tensor(rois[0]), torch.tensor(rois[1])],
    (7, 7),
    1 / 16,
    samples,
    aligned=True,
  )
  expected = expected.numpy().reshape(2, 70, 5, 7, 7).transpose(0, 1, 3, 4, 2)
  found = jax.jit(
    functools.partial(roi_align.roi_align, stride=16, size=7, samples=samples)
  )(maps, rois)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_proposals():
  from torchvision.models.detection.rpn import RegionProposalNetwork

  theirs = RegionProposalNetwork(
    None, None, 0.7, 0.3, 256, 0.5, {"testing": 60}, {"testing": 40}, 0.4
  ).eval()
  theirs.min_size = 0
  around = anchors.make_anchors(
    (4, 6), stride=16, sizes=(16, 32), ratios=(0.5, 1.0, 2.0)
  )
  rng = np.random.default_rng(13)
  logits = rng.normal(size=len(around)).astype(np.float32)
  deltas = rng.normal(0, 0.05, (len(around), 4)).astype(np.float32)
  decoded = theirs.box_coder.decode_single(
    torch.tensor(deltas), torch.tensor(around)
  )
  (expected,), _ = theirs.filter_proposals(
    decoded[None], torch.tensor(logits)[:, None], [(64, 96)], [len(around)]
  )
  found, some = rpn.propose(
    jnp.asarray(logits),
    jnp.asarray(deltas),
    around,
    jnp.array([64, 96]),
    before=60,
    after=40,
    threshold=0.4,
  )
  assert 20 < some.sum() < 40
  np.testing.assert_allclose(found[some], expected, rtol=1e-5, atol=1e-4)


def test_detections():
  from torchvision.models.detection.roi_heads import RoIHeads

  classes, detections = 4, 25
  theirs = RoIHeads(
    *[None] * 3, 0.5, 0.5, 512, 0.25, box_head.WEIGHTS, 0.2, 0.4, detections
  )
  proposals = made.boxes(80, seed=14)
  rng = np.random.default_rng(15)
  logits = rng.normal(0, 2, (80, classes + 1)).astype(np.float32)
  deltas = rng.normal(size=(80, classes, 4)).astype(np.float32)
  # Theirs has the background first.
  expected = theirs.postprocess_detections(
    torch.tensor(np.roll(logits, 1, axis=1)),
    torch.tensor(np.pad(deltas, ((0, 0), (1, 0), (0, 0))).reshape(80, -1)),
    [torch.tensor(proposals)],
    [(90, 80)],
  )
  found = box_head.detect(
    jnp.asarray(logits),
    jnp.asarray(deltas),
    jnp.asarray(proposals),
    jnp.ones(80, bool),
    jnp.array([90, 80]),
    settings.Test(score=0.2, nms_iou=0.4, detections=detections),
  )
  some = np.asarray(found.label) >= 0
  assert some.sum() == detections
  for ours, (theirs,) in zip(found, expected, strict=True):
    ours = ours[some] + (ours is found.label)  # their classes begin with 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
