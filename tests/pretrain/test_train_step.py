"""State and step: invariants, devices, accumulation.

All in float64, where only a fault differs by more than rounding, and in one
process of xdist, so that tests which use the same step compile it once.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.pretrain import (
  objective,
  optimizers,
  schedules,
  train_state,
  train_step,
)
from input_pipeline.errors import UsageError
from tests import tiny
from tests.tiny import CLASSES, batch

pytestmark = pytest.mark.xdist_group("train_step")

TOTAL_STEPS = 20
BASE_TARGET_DECAY = 0.7


CONTRASTIVE = dataclasses.replace(
  tiny.BYOL, negatives_weight=1.0, target="online"
)
REGRESSION = dataclasses.replace(
  tiny.BYOL, optimal_predictor=True, target="online_stopped"
)
NORMALIZED = dataclasses.replace(tiny.BYOL, normalization="batch_norm")


RATE = schedules.learning_rate_schedule(
  base_learning_rate=2.0, batch_size=32, warmup_steps=2, total_steps=TOTAL_STEPS
)


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


@functools.cache
def drawn(num_classes):
  """The network, and its first state, compiled once for all steps."""
  network = tiny.make_network(num_classes, jnp.dtype("float64"))
  tx = optimizers.lars(
    RATE, weight_decay=1e-6, momentum=0.9, trust_coefficient=1e-3
  )
  create = functools.partial(
    train_state.create_byol_state, network, tx, seed=3, image_size=8
  )
  return network, jax.jit(create, static_argnames="target_init")


@functools.cache
def make(
  *,
  target_decay=None,
  accumulation_steps=1,
  num_classes=CLASSES,
  devices=1,
  settings=tiny.BYOL,
):
  """What draws the first state, and the step, compiled once."""
  network, draw = drawn(num_classes)
  mesh = sharding.make_mesh(jax.devices()[:devices])
  kept = jax.tree.map(
    lambda x: sharding.cut(mesh, x.shape),
    jax.eval_shape(functools.partial(draw, target_init="copy")),
  )

  def create(target_init="independent"):
    return jax.device_put(draw(target_init=target_init), kept)

  step_fn = train_step.make_train_step(
    network,
    settings=settings,
    learning_rate=RATE,
    target_decay=target_decay
    or schedules.target_decay_schedule(
      base_target_decay=BASE_TARGET_DECAY, total_steps=TOTAL_STEPS
    ),
    accumulation_steps=accumulation_steps,
    gradient_dtype="params",
    mesh=mesh,
    make_views=tiny.stack_views,
  )
  jitted = jax.jit(step_fn, out_shardings=(kept, sharding.replicated(mesh)))

  def update(state, whole):
    moved = jitted(state, sharding.put_batch(mesh, whole))
    assert jitted._cache_size() == 1, "compiled more than once"
    return moved

  return create, update


def run(updates=4, **options):
  """State and metrics after some updates."""
  create, update = make(**options)
  state = create()
  for step in range(updates):
    state, metrics = update(state, batch(step))
  return jax.device_get(state), jax.device_get(metrics)


def largest_difference(a, b):
  """Largest difference of two trees, relative to the largest of each leaf."""
  differences = jax.tree.map(
    # The floor is for biases before a BatchNorm, whose gradient is rounding.
    lambda x, y: np.max(np.abs(x - y)) / max(np.max(np.abs(x)), 1e-2),
    a,
    b,
  )
  return max(jax.tree.leaves(differences))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("accumulation_steps", "settings"),
  [(1, tiny.BYOL), (1, CONTRASTIVE), (2, NORMALIZED), (2, REGRESSION)],
)
def test_one_device_equals_eight(accumulation_steps, settings):
  """Only the order of sums differs: bounds after four updates."""
  bound = 1e-9
  options = {"accumulation_steps": accumulation_steps, "settings": settings}
  one, metrics_one = run(**options)
  eight, metrics_eight = run(devices=8, **options)
  start = jax.device_get(make(**options)[0]().online.params)
  for params in (start, one.online.params, eight.online.params):
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
      np.dtype("float64")
    }
  for side in ("online", "target"):
    a, b = getattr(one, side), getattr(eight, side)
    assert largest_difference(a.params, b.params) < bound
    assert largest_difference(a.batch_stats, b.batch_stats) < bound
  assert largest_difference(start, one.online.params) > 0.01
  for name, value in metrics_one.items():
    np.testing.assert_allclose(
      value, metrics_eight[name], rtol=bound, atol=bound, err_msg=name
    )


@pytest.mark.slow
def test_accumulation_is_the_mean_of_micro_batch_gradients():
  create, update = make(accumulation_steps=2)
  state, whole = create(), batch(0)
  network, _ = drawn(CLASSES)
  sides = ("online", "target")
  stats = {side: getattr(state, side).batch_stats for side in sides}
  gradient = jax.jit(
    jax.value_and_grad(objective.objective, argnums=2, has_aux=True),
    static_argnums=(0, 1),
  )
  grads = []
  for part in (0, 1):  # every other row belongs to a micro-batch
    rows = {name: value[part::2] for name, value in whole.items()}
    images = jnp.stack([rows["view1"], rows["view2"]], axis=1)
    (_, (stats, _)), grad = gradient(
      network,
      tiny.BYOL,
      state.online.params,
      state.target.params,
      stats,
      images,
      rows["label"],
    )
    grads.append(grad)
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
  # The first learning rate is 0: the momentum shows the gradient.
  expected = state.online.apply_gradients(grads=mean)
  new, metrics = update(state, whole)
  assert (
    largest_difference(
      expected.opt_state[2].trace, new.online.opt_state[2].trace
    )
    < 1e-9
  )
  assert largest_difference(stats["online"], new.online.batch_stats) < 1e-9
  assert int(new.step) == int(new.target.step) == 1
  count = new.online.batch_stats["encoder"]["stem_norm"]["count"]
  assert count == 4  # two micro-batches of two views, but one update
  norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(mean)))
  np.testing.assert_allclose(metrics["train/grad_norm"], norm, rtol=1e-9)


def twice(step):
  """A batch whose two micro-batches hold the same images."""
  half = batch(step, 16)
  return {name: np.repeat(value, 2, axis=0) for name, value in half.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("settings", "labelled"),
  [
    (tiny.BYOL, range(32)),
    (REGRESSION, range(32)),
    (tiny.BYOL, [0]),
    (tiny.BYOL, [0, 1, 2, 6, 20]),
    (tiny.BYOL, []),
  ],
)
def test_micro_batches_are_one_batch_if_their_statistics_agree(
  settings, labelled
):
  """Momentum shows the gradient: the first learning rate is 0."""
  traces, reports = [], []
  whole = twice(0)
  whole["label"][~np.isin(np.arange(32), labelled)] = -1
  for parts in (1, 2):
    create, update = make(accumulation_steps=parts, settings=settings)
    state, metrics = update(create(), whole)
    traces.append(jax.device_get(state.online.opt_state[2].trace))
    reports.append(jax.device_get(metrics))
  assert largest_difference(*traces) < 1e-9
  for name in ("classifier_loss", "top1", "top5", "byol_loss", "grad_norm"):
    one, other = (report[f"train/{name}"] for report in reports)
    np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=name)
  assert any(np.abs(x).max() > 1e-2 for x in jax.tree.leaves(traces[0]))


def zero_then_one(step):
  """A target decay of 0 for four updates, and of 1 for all others."""
  return jnp.where(step < 4, 0.0, 1.0)


@pytest.mark.slow
def test_online_stopped_is_a_target_decay_that_stays_zero():
  settings = dataclasses.replace(tiny.BYOL, target="online_stopped")
  ends = []
  for options in ({"settings": settings}, {"target_decay": zero_then_one}):
    create, update = make(**options)
    state = create("copy")
    for step in range(4):
      state, metrics = update(state, batch(step))
    ends.append(jax.device_get((state, metrics)))
  (ours, metrics), (average, expected) = ends
  assert largest_difference(average.online.params, ours.online.params) < 1e-9
  assert largest_difference(average.target.params, ours.target.params) < 1e-9
  for name in ("train/byol_loss", "train/target_decay"):
    np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-9)


@pytest.mark.slow
def test_tau_one_freezes_the_target_and_tau_zero_copies():
  create, update = make(target_decay=zero_then_one)
  state = create()
  for step in range(4):
    state, _ = update(state, batch(step))
  assert largest_difference(state.online.params, state.target.params) < 1e-9
  new, _ = update(state, batch(4))
  assert largest_difference(state.online.params, new.online.params) > 1e-4
  jax.tree.map(
    np.testing.assert_array_equal, state.target.params, new.target.params
  )


@pytest.mark.slow
def test_target_moves_by_the_average_of_the_updated_online_network():
  create, update = make()
  state = create()
  for step in range(3):  # the first learning rate is 0
    before, state = state, update(state, batch(step))[0]
  tau = 1 - (1 - BASE_TARGET_DECAY) * (1 + np.cos(np.pi * 2 / TOTAL_STEPS)) / 2
  expected = jax.tree.map(
    lambda xi, theta: tau * xi + (1 - tau) * theta,
    before.target.params,
    state.online.params,
  )
  assert largest_difference(expected, state.target.params) < 1e-9
  moved = largest_difference(before.online.params, state.online.params)
  assert moved > 1e-4  # so "updated" is told from "before the update"
  own = state.target.batch_stats["encoder"]["stem_norm"]["mean"]
  online = state.online.batch_stats["encoder"]["stem_norm"]["mean"]
  assert np.max(np.abs(own - online)) > 1e-3  # not averaged, not copied


@pytest.mark.slow
def test_labels_move_only_the_classifier():
  create, update = make()
  first = batch(0)
  other = {**first, "label": (first["label"] + 1) % 4}
  a, _ = update(create(), first)
  b, _ = update(create(), other)
  trace_a, trace_b = (s.online.opt_state[2].trace for s in (a, b))
  for part in ("encoder", "projector", "predictor"):
    assert largest_difference(trace_a[part], trace_b[part]) < 1e-4
  assert largest_difference(trace_a["classifier"], trace_b["classifier"]) > 0.1


@pytest.mark.slow
def test_only_view1_trains_the_classifier():
  create, update = make()
  first = batch(0)
  swapped = {**first, "view2": batch(1)["view2"]}
  _, a = update(create(), first)
  _, b = update(create(), swapped)
  np.testing.assert_allclose(
    a["train/classifier_loss"], b["train/classifier_loss"], rtol=1e-5
  )
  assert abs(a["train/byol_loss"] - b["train/byol_loss"]) > 1e-3


@pytest.mark.slow
def test_rows_without_label_do_not_count():
  create, update = make()
  some = batch(0)
  some["label"][::2] = -1
  state, metrics = update(create(), some)
  assert np.isfinite(metrics["train/classifier_loss"])
  none = {**some, "label": np.full(32, -1, np.int32)}
  state, metrics = update(create(), none)
  assert metrics["train/classifier_loss"] == 0
  kernel = state.online.opt_state[2].trace["classifier"]["bias"]
  np.testing.assert_array_equal(kernel, 0)


@pytest.mark.slow
def test_unlabelled_data_train_without_classifier():
  create, update = make(num_classes=0)
  state, metrics = update(create(), batch(0))
  assert "classifier" not in state.online.params
  assert not {"train/top1", "train/classifier_loss"} & metrics.keys()
  assert np.isfinite(metrics["train/byol_loss"])


@pytest.mark.slow
def test_initial_target():
  create, _ = make()
  state = create()
  assert largest_difference(state.online.params, state.target.params) > 0.1
  state = create("copy")
  assert largest_difference(state.online.params, state.target.params) == 0


def test_batch_size_must_divide():
  sharding.check_batch_size(64, devices=8, accumulation_steps=4)
  with pytest.raises(UsageError, match=r"100 .*multiple of 32.*96 or 128"):
    sharding.check_batch_size(100, devices=8, accumulation_steps=4)
  with pytest.raises(UsageError, match="such as 32"):
    sharding.check_batch_size(8, devices=8, accumulation_steps=4)


@pytest.mark.parametrize(
  ("batch_size", "steps", "ways_out"),
  [
    (1, 1, r"batch_size 2 or 3, or another multiple of 1\."),
    (9, 9, r"batch_size 18 or 27, .* multiple of 9, or accumulation_steps 3\."),
    (7, 7, r"batch_size 14 or 21, .* multiple of 7, or accumulation_steps 1\."),
  ],
)
def test_one_image_at_a_time_is_refused(batch_size, steps, ways_out):
  with pytest.raises(UsageError, match="one image .*" + ways_out):
    sharding.check_batch_size(batch_size, devices=1, accumulation_steps=steps)
  # What the sentence proposes will do; so does one image on each device.
  with pytest.raises(UsageError, match=r"multiple of 2, such as 4 or 6\."):
    sharding.check_batch_size(3, devices=1, accumulation_steps=2)
  for size, parts in ((2 * steps, steps), (batch_size, 1)):
    if size > 1:
      sharding.check_batch_size(size, devices=1, accumulation_steps=parts)
  sharding.check_batch_size(8, devices=8, accumulation_steps=1)


def test_prefetch_keeps_order_and_loses_nothing():
  mesh = sharding.make_mesh()
  batches = ({"x": np.full(8, i)} for i in range(7))
  found = [int(b["x"][0]) for b in sharding.prefetch(mesh, batches)]
  assert found == list(range(7))
