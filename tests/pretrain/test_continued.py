"""A run continues another one: its config, momentum and step."""

import json
import shutil

import jax
import optax
import pytest

from byol_flax.pretrain import (
  initial_state,
  origin,
  origin_run,
)
from byol_flax.runs import records
from input_pipeline.errors import UsageError
from tests.pretrain.begun import (
  ALONE,
  CONFIG,
  assert_same,
  begin,
  some_state,
  whole_config,
)


@pytest.mark.slow
def test_a_run_is_continued_with_momentum_and_step(source, tmp_path):
  folder, old = source
  state, mesh = some_state(0)
  state = jax.tree.map(lambda x: x * 0 if x.ndim == 0 else x, state)
  config = whole_config(seed=5, data={"name": "other"})
  beginning = begin(folder, state, mesh, tmp_path, "everything", config=config)
  first = beginning.enter(state)
  assert (
    beginning.step == int(first.online.step) == int(first.target.step) == 20
  )
  counted = optax.tree_utils.tree_get(first.online.opt_state, "count")
  assert int(counted) == 20
  assert_same(first.online.variables, old.online.variables)
  assert_same(first.target.variables, old.target.variables)
  assert_same(
    *(
      optax.tree_utils.tree_get(x.online.opt_state, "trace")
      for x in (first, old)
    )
  )
  places = [[x.sharding for x in jax.tree.leaves(s)] for s in (first, state)]
  assert places[0] == places[1]
  assert beginning.record["takes"] == "everything"


def test_a_run_of_another_config_is_not_continued(source, tmp_path):
  folder, _ = source
  state, mesh = some_state(0)
  with pytest.raises(UsageError, match=r"batch_size: 64 there, 32 now"):
    begin(
      folder,
      state,
      mesh,
      tmp_path,
      "everything",
      config=whole_config(batch_size=32),
    )
  asked = origin.parse(folder, "everything")
  weights = origin_run.open_run(asked, state, mesh, ALONE)
  with pytest.raises(UsageError, match=r"done 20 updates.* this run has 20;"):
    initial_state._step_to_go_on(asked, weights, whole_config(), 20)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("change", "told"),
  [
    ("learning_rate", "base_learning_rate: 0.1 there, 0.2 now"),
    ("views", "goes on with --config.seed=2"),
  ],
)
def test_a_run_that_was_rolled_back_is_continued_as_it_went_on(
  source, tmp_path, change, told
):
  state, mesh = some_state(0)
  at = tmp_path / "source"
  shutil.copytree(source[0], at)
  config = {**CONFIG, "base_learning_rate": 0.2}
  for file in at.glob("checkpoints/*/record/metadata"):
    found = json.loads(file.read_text())
    changed = {"config": config, "rolled_back": {"change": change}}
    file.write_text(json.dumps({**found, **changed}))

  def sentence(rate):
    asked = whole_config(base_learning_rate=rate)
    try:
      return begin(
        str(at), state, mesh, tmp_path / "new", "everything", config=asked
      ).sentence
    except UsageError as error:
      return str(error)

  assert told in sentence(0.2)
  if change == "learning_rate":
    assert "goes on with --config.base_learning_rate=0.1" in sentence(0.1)


@pytest.mark.slow
def test_a_run_from_before_the_reference_batch_size_is_continued(
  source, tmp_path
):
  asked = origin.parse(source[0], "everything")
  older = {k: v for k, v in CONFIG.items() if k != "reference_batch_size"}
  weights = origin.Weights(
    shapes=None,
    has_momentum=True,
    step=20,
    model=older["model"],
    config=records.completed({"config": older})["config"],
    what="it",
    read=lambda: None,
    record={},
  )
  now = whole_config(reference_batch_size=4096)
  assert initial_state._step_to_go_on(asked, weights, now, 100) == 20
