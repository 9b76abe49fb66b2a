"""Weights of another run enter a new one: which, whole, and of whose making."""

import shutil

import jax
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.pretrain import initial_state, optimizers, origin, train_state
from byol_flax.runs import checkpoint, distributed
from input_pipeline.errors import RunError, UsageError
from tests import tiny

ALONE = distributed.Processes()
RECORD = {
  "config": {},
  "code_version": "c0de",
  "seconds": 1.0,
}


def some_state(seed, devices=8, **changes):
  """A state as it lies on a mesh, with numbers that depend on `seed`, and it.

  Of `changes`, `num_classes` and modules go to the network.
  """
  mesh = sharding.make_mesh(jax.devices()[:devices])
  tx = optimizers.lars(
    lambda step: 0.1, weight_decay=0.0, momentum=0.9, trust_coefficient=1e-3
  )
  shapes = jax.eval_shape(
    lambda: train_state.create_byol_state(
      tiny.make_network().clone(**changes),
      tx,
      seed=0,
      image_size=tiny.SIZE,
      target_init="independent",
    )
  )
  rng = np.random.default_rng(seed)

  def draw(x):
    values = rng.integers(1, 1000, x.shape).astype(x.dtype)
    return jax.device_put(values, sharding.cut(mesh, x.shape))

  return jax.tree.map(draw, shapes), mesh


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A workdir with checkpoints 10 and 20, and the state of the latter."""
  folder = str(tmp_path_factory.mktemp("source"))
  state, _ = some_state(1)
  checkpoints = checkpoint.Checkpoints(
    folder,
    every_steps=1,
    every_minutes=1,
    keep_last=2,
    keep_every=0,
    processes=ALONE,
  )
  for step in (10, 20):
    position = {"seed": 1, "next_update": step}
    checkpoints.save(step, state, {**RECORD, "data_position": position})
  checkpoints.close()
  return folder, state


def begin(text, state, mesh, folder, encoder_only=False, restart=False):
  asked = origin.parse(text, encoder_only)
  return initial_state.open_beginning(
    asked, state, mesh, str(folder), restart, ALONE
  )


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("devices", [8, 2])
def test_both_networks_whole_on_any_number_of_devices(
  source, tmp_path, devices
):
  folder, old = source
  state, mesh = some_state(0, devices)
  beginning = begin(folder, state, mesh, tmp_path / "new")
  first = beginning.enter(state)
  assert_same(first.online.variables, old.online.variables)
  assert_same(first.target.variables, old.target.variables)
  # Momentum and step are the new state's, and all lies as that does.
  assert_same(first.online.opt_state, state.online.opt_state)
  assert int(first.step) == int(state.step) != int(old.step)
  places = [[x.sharding for x in jax.tree.leaves(s)] for s in (first, state)]
  assert places[0] == places[1]
  assert beginning.record == {
    "workdir": folder,
    "step": 20,
    "encoder_only": False,
    "code_version": "c0de",
    "digest": checkpoint.digest.tree_digest(old),
  }
  assert "both networks" in beginning.sentence


@pytest.mark.slow
def test_the_online_encoder_alone_for_both_networks(source, tmp_path):
  folder, old = source
  state, mesh = some_state(0, num_classes=7)
  beginning = begin(f"{folder}@10", state, mesh, tmp_path, encoder_only=True)
  first = beginning.enter(state)
  for new, created in (
    (first.online, state.online),
    (first.target, state.target),
  ):
    for collection in ("params", "batch_stats"):
      taken, drawn = getattr(new, collection), getattr(created, collection)
      assert_same(taken["encoder"], getattr(old.online, collection)["encoder"])
      rest = taken.keys() - {"encoder"}
      assert_same({k: taken[k] for k in rest}, {k: drawn[k] for k in rest})
  assert "heads begin anew" in beginning.sentence
  assert beginning.record["step"] == 10
  # An update gives the memory of its state away, each array once.
  arrays = jax.tree.leaves(first)
  places = {x.addressable_data(0).unsafe_buffer_pointer() for x in arrays}
  assert len(places) == len(arrays)


def test_a_classifier_of_other_classes_begins_anew_and_says_so(
  source, tmp_path
):
  folder, old = source
  state, mesh = some_state(0, num_classes=7)
  beginning = begin(folder, state, mesh, tmp_path)
  first = beginning.enter(state)
  assert "classifier begins anew (classifier/bias is (4,)" in beginning.sentence
  assert_same(
    first.online.params["classifier"], state.online.params["classifier"]
  )
  assert_same(first.target.params["predictor"], old.target.params["predictor"])
  unlabelled, mesh = some_state(0, num_classes=0)
  first = begin(folder, unlabelled, mesh, tmp_path).enter(unlabelled)
  assert first.online.params.keys() == unlabelled.online.params.keys()


def test_what_does_not_fit_is_named(source, tmp_path):
  folder, _ = source
  network = tiny.make_network()
  wider = network.encoder.clone(width=2)
  state, mesh = some_state(0, encoder=wider)
  for encoder_only in (False, True):
    with pytest.raises(UsageError) as error:
      begin(folder, state, mesh, tmp_path, encoder_only)
    assert "encoder/group0_block0/conv0/kernel is (3, 3, 4, 8) there, " in str(
      error.value
    )
    assert "or take --init-encoder" not in str(error.value)
  head = network.projector.clone(hidden_size=32)
  state, mesh = some_state(0, projector=head)
  with pytest.raises(UsageError, match=r"projector/linear0/bias is \(64,\) th"):
    begin(folder, state, mesh, tmp_path)
  begin(folder, state, mesh, tmp_path, encoder_only=True)


def test_what_is_not_there_is_told(source, tmp_path):
  folder, _ = source
  state, mesh = some_state(0)
  with pytest.raises(UsageError, match=r"no checkpoint 15; it has 10, 20\."):
    begin(f"{folder}@15", state, mesh, tmp_path)
  with pytest.raises(UsageError, match="there is no checkpoint in"):
    begin(f"{folder}/checkpoints", state, mesh, tmp_path)
  with pytest.raises(UsageError, match="the workdir of this run itself"):
    begin(folder, state, mesh, folder, restart=True)


def test_a_damaged_checkpoint_is_told_and_no_other_taken(source, tmp_path):
  folder, _ = source
  shutil.copytree(folder, tmp_path / "copy")
  damaged = tmp_path / "copy" / "checkpoints" / "20"
  state, mesh = some_state(0)
  beginning = begin(f"{tmp_path}/copy", state, mesh, tmp_path)
  for file in (damaged / "state").rglob("d/*"):
    file.write_bytes(file.read_bytes()[:100])
  with pytest.raises(RunError, match=r"20 is damaged .* has 10 too; WORKDIR@"):
    beginning.enter(state)
  (damaged / "record" / "metadata").write_text("{")
  with pytest.raises(RunError, match=r"20 is damaged .* has 10 too; WORKDIR@"):
    begin(f"{tmp_path}/copy", state, mesh, tmp_path)


def test_a_run_that_exists_is_resumed_or_the_flag_refused():
  began = {"workdir": "/a", "step": 20, "encoder_only": False}
  for same in ("/a", "/a@20"):
    asked = origin.parse(same, False)
    assert "began with --init=/a@20; it goes on" in origin.check_resumes(
      asked, began, "/w"
    )
  for other, encoder_only in (("/b", False), ("/a@10", False), ("/a", True)):
    asked = origin.parse(other, encoder_only)
    with pytest.raises(UsageError, match="/w began with --init=/a@20, so --i"):
      origin.check_resumes(asked, began, "/w")
  with pytest.raises(UsageError, match="began with random weights, so --init"):
    origin.check_resumes(origin.parse("/a", False), None, "/w")
