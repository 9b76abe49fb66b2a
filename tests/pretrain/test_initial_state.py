"""Weights from elsewhere enter a new run: which, whole, and of whose making."""

import functools
import shutil

import jax
import numpy as np
import optax
import pytest

from byol_flax.pretrain import (
  origin,
)
from byol_flax.runs import checkpoint
from byol_flax.weights import npz, structure
from byol_flax.weights.arrays import Stored
from byol_flax.weights.foreign import Account, Foreign
from input_pipeline.errors import RunError, UsageError
from tests import tiny
from tests.pretrain.begun import (
  CONFIG,
  assert_same,
  begin,
  some_state,
  whole_config,
)


@pytest.mark.slow
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
    "takes": "networks",
    "code_version": "c0de",
    "digest": checkpoint.digest.tree_digest(old),
  }
  assert "both networks" in beginning.sentence


@pytest.mark.slow
def test_the_online_encoder_alone_for_both_networks(source, tmp_path):
  folder, old = source
  state, mesh = some_state(0, num_classes=7)
  beginning = begin(f"{folder}@10", state, mesh, tmp_path, takes="encoder")
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_does_not_fit_is_named(source, tmp_path):
  folder, _ = source
  network = tiny.make_network()
  wider = network.encoder.clone(width=2)
  state, mesh = some_state(0, encoder=wider)
  for takes in origin.FLAGS:
    with pytest.raises(UsageError) as error:
      begin(folder, state, mesh, tmp_path, takes, config=whole_config())
    assert "encoder/group0_block0/conv0/kernel is (3, 3, 4, 8) there, " in str(
      error.value
    )
    assert "or take --init-encoder" not in str(error.value)
  head = network.projector.clone(hidden_size=32)
  state, mesh = some_state(0, projector=head)
  with pytest.raises(UsageError, match=r"projector/linear0/bias is \(64,\) th"):
    begin(folder, state, mesh, tmp_path)
  begin(folder, state, mesh, tmp_path, takes="encoder")


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("takes", origin.FLAGS)
def test_a_difference_that_no_shape_shows_is_told(source, tmp_path, takes):
  folder, _ = source
  state, mesh = some_state(0)
  config = {**CONFIG, "model": {"encoder": {"padding": "symmetric"}}}
  with pytest.raises(UsageError, match=r"--config.model.encoder.padding=same"):
    begin(folder, state, mesh, tmp_path, takes, config=config)


def test_arrays_of_other_shapes_are_told_before_settings(source, tmp_path):
  head = tiny.make_network().projector.clone(hidden_size=12)
  state, mesh = some_state(0, projector=head)
  config = {**CONFIG, "model": {"encoder": {"padding": "symmetric"}}}
  with pytest.raises(UsageError, match="does not fit this run: projector"):
    begin(source[0], state, mesh, tmp_path, config=config)


def write_file(folder, old, *, whole=True, step=20, details=None):
  """A weight file with what the state `old` holds; returns its path."""
  stored = functools.partial(jax.tree.map, lambda x: Stored.of(np.asarray(x)))
  networks = {"online": stored(old.online.variables)}
  if whole:
    networks["target"] = stored(old.target.variables)
  trace = optax.tree_utils.tree_get(old.online.opt_state, "trace")
  path = str(folder / npz.FILE)
  model = structure.model_of(
    networks["online"]["params"], padding="same", decay=0.9, epsilon=1e-5
  )
  npz.write(
    path,
    Foreign(
      format="made",
      networks=networks,
      momentum=stored(trace) if whole else None,
      step=step,
      model=model,
      image_size=8,
      crop_ratio=0.875,
      account=Account(0, {}),
      details=details or {},
    ),
  )
  return path


@pytest.mark.slow
@pytest.mark.parametrize("takes", origin.FLAGS)
def test_a_file_gives_what_the_run_gives(source, tmp_path, takes):
  folder, old = source
  write_file(tmp_path, old)
  state, mesh = some_state(0)
  firsts = [
    begin(where, state, mesh, tmp_path / "new", takes, config=whole_config())
    for where in (str(tmp_path), folder)
  ]
  assert firsts[0].step == firsts[1].step
  of_file, of_run = (beginning.enter(state) for beginning in firsts)
  assert_same(of_file, of_run)
  assert jax.tree.structure(of_file) == jax.tree.structure(of_run)
  assert [x.sharding for x in jax.tree.leaves(of_file)] == [
    x.sharding for x in jax.tree.leaves(of_run)
  ]


@pytest.mark.slow
def test_a_file_that_tells_its_config_is_held_to_it(source, tmp_path):
  _, old = source
  state, mesh = some_state(0)
  write_file(tmp_path, old, details={"config": CONFIG})
  given = (str(tmp_path), state, mesh, tmp_path / "new", "everything")
  same = begin(*given, config=whole_config())
  assert "does not tell" not in same.sentence
  with pytest.raises(UsageError, match=r"batch_size: 64 there, 32 now"):
    begin(*given, config=whole_config(batch_size=32))
  for details in ({}, {"config": "nonsense"}, {"config": {"model": 3}}):
    write_file(tmp_path, old, details=details)
    unknown = begin(*given, config=whole_config(batch_size=32))
    assert "does not tell its batch size and schedules" in unknown.sentence


def test_a_file_that_lacks_what_is_asked_for_is_told(source, tmp_path):
  _, old = source
  state, mesh = some_state(0)
  path = write_file(tmp_path, old, whole=False)
  for takes in ("networks", "everything"):
    with pytest.raises(UsageError, match="holds no target network; --init-enc"):
      begin(path, state, mesh, tmp_path / "new", takes)
  begin(path, state, mesh, tmp_path / "new", "encoder")
  path = write_file(tmp_path, old, step=None)
  with pytest.raises(UsageError, match="does not tell its step; --init takes"):
    begin(path, state, mesh, tmp_path / "new", "everything")
  network = tiny.make_network()
  state, mesh = some_state(0, encoder=network.encoder.clone(width=2))
  with pytest.raises(UsageError, match=r"does not fit this run: encoder/gr"):
    begin(path, state, mesh, tmp_path / "new", "encoder")
  (tmp_path / "x.bin").write_text("?")
  with pytest.raises(
    UsageError, match=r"--init=.*x\.bin: It is no weight file"
  ):
    begin(str(tmp_path / "x.bin"), state, mesh, tmp_path / "new")


def test_a_run_that_exists_is_resumed_or_the_flag_refused():
  began = {"workdir": "/a", "step": 20, "encoder_only": False}
  for same in ("/a", "/a@20"):
    asked = origin.parse(same, "networks")
    assert "began with --init=/a@20; it goes on" in origin.check_resumes(
      asked, began, "/w"
    )
  others = (("/b", "networks"), ("/a@10", "networks"), ("/a", "encoder"))
  for other, takes in (*others, ("/a", "everything")):
    asked = origin.parse(other, takes)
    with pytest.raises(UsageError, match="/w began with --init=/a@20, so --"):
      origin.check_resumes(asked, began, "/w")
  of_file = {**began, "workdir": "/a/weights.npz", "step": None}
  asked = origin.parse("/a", "networks")  # the folder is gone by now
  assert "it goes on" in origin.check_resumes(asked, of_file, "/w")
  began |= {"takes": "everything"}
  asked = origin.parse("/a@20", "everything")
  assert "--continue=/a@20" in origin.check_resumes(asked, began, "/w")
  with pytest.raises(UsageError, match="began with random weights, so --init"):
    origin.check_resumes(origin.parse("/a", "networks"), None, "/w")
