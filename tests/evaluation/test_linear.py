"""Linear evaluation: the authors' updates, sweeps in one pass, the protocol."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_flax.evaluation import encoder, linear, linear_heads
from byol_flax.models import resnet
from byol_flax.runs.distributed import Processes
from configs import byol_digits
from configs import linear as linear_config
from input_pipeline import augment
from input_pipeline.errors import PreemptedError, RunError, UsageError
from tests.evaluation import settings
from tests.pretrain import test_golden_step as golden_step

RNG = np.random.default_rng(11)


def encoder_of(module, variables, size):
  return encoder.Encoder(
    module=module,
    variables=variables,
    crop=augment.EvalCrop(size=size, ratio=1.0),
    has_averages=True,
    config=byol_digits.get_config(),
    provenance={},
  )


@pytest.mark.slow
def test_six_updates_are_those_of_the_authors():
  """A sweep of three, whose second head has the golden's learning rates.

  On one encoder, because test_golden_step.py compares what each one makes.
  """
  name = "TinyResNet"
  golden = np.load(golden_step.GOLDENS / f"linear_step_{name}.npz")
  with jax.enable_x64(True):
    module = golden_step.encoder_of(name)
    variables = {
      "params": golden_step.golden_tree(golden, "frozen|encoder_0"),
      "batch_stats": golden_step.with_counts(
        golden_step.golden_tree(golden, "frozen|encoder_bn_0"), 10
      ),
    }
    variables = {kind: tree["encoder"] for kind, tree in variables.items()}
    images, labels = golden["frozen|images"], golden["frozen|labels"]
    rates = jnp.asarray(golden["frozen|learning_rate"])
    opened = encoder_of(module, variables, images.shape[2])
    kernel = golden["frozen|classifier_0|linear|w"]
    bias = golden["frozen|classifier_0|linear|b"]
    state = linear_heads.create_state(
      3, *kernel.shape, seed=0, dtype=jnp.float64
    )
    weights = {
      "kernel": jnp.asarray(np.stack([kernel] * 3)),
      "bias": jnp.asarray(np.stack([bias] * 3)),
    }
    state = state.replace(weights=weights)
    step = jax.jit(
      linear_heads.make_step(
        opened,
        [
          linear_heads.Head(rate, regularised=False)
          for rate in (0.5, 1.0, 0.25)
        ],
        decay=rates.__getitem__,
        momentum=0.9,
        alpha=20.0,
        beta=0.01,
      )
    )
    for t in range(6):
      batch = {"image": images[t], "label": labels[t]}
      state, report = step(state, variables, batch)
      np.testing.assert_allclose(
        report["train/loss/lr1"], golden[f"frozen|loss_{t}"], rtol=1e-9
      )
      if f"frozen|classifier_{t + 1}|linear|w" in golden.files:
        for ours, theirs in (("kernel", "w"), ("bias", "b")):
          expected = golden[f"frozen|classifier_{t + 1}|linear|{theirs}"]
          np.testing.assert_allclose(
            state.weights[ours][1],
            expected,
            rtol=0,
            atol=1e-8 * np.abs(expected).max(),
          )
    y = resnet.represent(module, variables, images[0])
    logits = linear_heads.logits_of(state.weights, y)[1]
    for found, name_after in ((y, "representation"), (logits, "logits")):
      expected = golden[f"frozen|{name_after}_after"]
      np.testing.assert_allclose(
        found, expected, rtol=0, atol=1e-8 * np.abs(expected).max()
      )


@pytest.mark.slow
def test_losses_against_numpy():
  logits = RNG.normal(0, 30, (2, 5, 3))
  labels = np.array([0, 2, -1, 1, 1])
  found = linear_heads.head_losses(
    jnp.asarray(logits),
    jnp.asarray(labels),
    jnp.array([False, True]),
    alpha=20.0,
    beta=0.01,
  )
  for h, used in enumerate((logits[0], 20 * np.tanh(logits[1] / 20))):
    each = []
    for b in np.flatnonzero(labels >= 0):
      top = used[b].max()
      log_sum = top + np.log(np.exp(used[b] - top).sum())
      each.append(log_sum - used[b, labels[b]])
      if h:
        each[-1] += 0.01 * np.mean(used[b] ** 2)
    np.testing.assert_allclose(found[h], np.mean(each), rtol=1e-5)


@pytest.mark.slow
def test_each_head_of_a_sweep_is_trained_as_if_alone():
  """Against optax, on features that stand for a whole network."""

  class Plain:
    param_dtype = dtype = jnp.float32

    def apply(self, variables, x, train):
      return jnp.mean(x, axis=(2, 3)) @ variables

  variables = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
  heads = [
    linear_heads.Head(rate, regularised)
    for regularised in (False, True)
    for rate in (0.3, 0.05)
  ]
  step = jax.jit(
    linear_heads.make_step(
      encoder_of(Plain(), variables, 6),
      heads,
      decay=lambda step: 1 / (1 + step),
      momentum=0.9,
      alpha=2.0,
      beta=0.5,
    )
  )
  batches = [
    {
      "image": RNG.integers(0, 256, (8, 6, 6, 3), np.uint8),
      "label": RNG.integers(0, 5, 8).astype(np.int32),
    }
    for _ in range(4)
  ]
  state = linear_heads.create_state(4, 4, 5, seed=3, dtype=jnp.float32)
  start = jax.tree.map(lambda x: x[0], state.weights)
  for batch in batches:
    state, _ = step(state, variables, batch)

  for h, head in enumerate(heads):

    def loss(weights, batch, head=head):
      y = resnet.represent(Plain(), variables, batch["image"])
      logits = y @ weights["kernel"] + weights["bias"][None]
      penalty = 0.0
      if head.regularised:
        logits = 2.0 * jnp.tanh(logits / 2.0)
        penalty = 0.5 * jnp.mean(logits**2)
      each = optax.softmax_cross_entropy_with_integer_labels(
        logits, batch["label"]
      )
      return each.mean() + penalty

    tx = optax.sgd(
      lambda step, rate=head.learning_rate: rate / (1 + step),
      momentum=0.9,
      nesterov=True,
    )
    alone, inner = start, tx.init(start)
    for batch in batches:
      moves, inner = tx.update(jax.grad(loss)(alone, batch), inner)
      alone = optax.apply_updates(alone, moves)
    for name in ("kernel", "bias"):
      np.testing.assert_allclose(
        state.weights[name][h], alone[name], rtol=1e-4, atol=1e-6
      )


def test_accuracies_count_labelled_examples_only():
  guesses = np.array([[[0, 1], [2, 0]], [[1, 0], [1, 2]], [[0, 1], [0, 1]]])
  found = linear_heads.accuracies(guesses, np.array([0, 2, -1]))
  np.testing.assert_array_equal(found, [[0.5, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_head_that_has_diverged_is_always_wrong(value):
  """`top_k` of NaN names the first classes, which may be the most frequent."""
  logits = np.zeros((2, 6, 3), np.float32)
  logits[0, :, 1] = 1
  logits[1, :, 1] = value
  guesses = np.swapaxes(linear_heads.best_of(logits), 0, 1)
  found = linear_heads.accuracies(guesses, np.array([0, 0, 0, 0, 0, 1]))
  np.testing.assert_allclose(found, [[1 / 6, 1], [0, 0]])


@pytest.mark.slow
def test_a_sweep_of_which_all_has_diverged_is_no_result(tmp_path):
  made = setting(tmp_path, epochs=1.0, learning_rates=(1e38, 2e38))
  with pytest.raises(RunError, match="has diverged: its logits are not finite"):
    linear.run(made)


def setting(workdir, devices=8, **changes):
  return settings.setting(
    linear_config.get_config("table7=1"),
    workdir,
    devices=devices,
    **{
      **settings.PARTS,
      "epochs": 6.0,
      "batch_size": 64,
      "learning_rates": (0.8, 1e-4),
      **changes,
    },
  )


class Preempted(Processes):
  """Told to end before the n-th update or part of an evaluation."""

  def __init__(self, n):
    super().__init__()
    self.left = n

  def check_preempted(self):
    self.left -= 1
    if not self.left:
      raise PreemptedError


@pytest.mark.slow
def test_table_7_from_one_command_goes_on_after_preemptions(tmp_path):
  whole = linear.run(setting(tmp_path / "whole"))
  assert [
    (row["augmentation"], row["logit_regularisation"]) for row in whole["rows"]
  ] == [
    ("crop_flip", False),
    ("crop_flip", True),
    ("pretraining", False),
    ("pretraining", True),
  ]
  for row in whole["rows"]:
    # A learning rate of next to nothing leaves the classifier at chance.
    assert row["learning_rate"] == 0.8
    assert row["valid_top1"]["0.8"] > row["valid_top1"]["0.0001"] + 0.1
    assert row["top5"] > row["top1"] > 0.25
  assert [split["examples"] for split in whole["splits"]] == [862, 575, 360]

  stops = 0
  for n in (30, 50, 3, 100, 2, 10**6):
    stopped = setting(tmp_path / "stopped")
    object.__setattr__(stopped, "processes", Preempted(n))
    try:
      again = linear.run(stopped)
    except PreemptedError:
      stops += 1
  assert stops >= 3
  assert again == whole
  lines = [
    json.loads(line)
    for line in (tmp_path / "stopped/crop_flip/metrics.jsonl")
    .read_text()
    .splitlines()
  ]
  updates = [line["step"] for line in lines if line["kind"] == "update"]
  assert updates == sorted(set(updates))


@pytest.mark.slow
def test_one_device_and_three_find_the_same(tmp_path):
  options = {"augmentations": ("crop_flip",), "epochs": 2.0, "batch_size": 48}
  one, three = (
    linear.run(setting(tmp_path / str(n), n, **options))["rows"] for n in (1, 3)
  )
  for a, b in zip(one, three, strict=True):
    assert a["top1"] == pytest.approx(b["top1"], abs=0.012)  # 4 of 360
    assert a["learning_rate"] == b["learning_rate"]


@pytest.mark.slow
def test_mistakes_are_told_before_anything_is_trained(tmp_path):
  for changes, told in (
    ({"valid_split": "train[50%:]"}, "share 144 images"),
    ({"test_split": "train[:10]"}, "share 10 images"),
    ({"valid_split": ""}, "learning_rates has 2 values, but valid_split is"),
    ({"batch_size": 864}, "batch_size is 864, more than the 862 images"),
    ({"batch_size": 60}, "must be a multiple of 8, such as 56 or 64"),
    ({"epochs": 0.01}, "0 updates"),
  ):
    with pytest.raises(UsageError, match=told):
      linear.run(setting(tmp_path, **changes))
  assert not list(tmp_path.iterdir())
