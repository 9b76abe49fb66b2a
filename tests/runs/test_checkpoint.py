"""Checkpoints: whole or not at all, in time, and read back to the bit."""

import pathlib
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.runs import (
  buckets,
  checkpoint,
  checkpoint_manager,
  digest,
  distributed,
)
from input_pipeline.errors import RunError

OPTIONS = {
  "every_steps": 10,
  "every_minutes": 1e6,
  "keep_last": 2,
  "keep_every": 0,
  "processes": distributed.Processes(),
}


def state(seed=0, devices=8):
  rng = np.random.default_rng(seed)
  whole = sharding.replicated(sharding.make_mesh(jax.devices()[:devices]))
  tree = {
    "kernel": rng.normal(size=(40, 30)).astype(np.float32),
    "count": np.int32(seed),
    "inner": {"bias": rng.normal(size=7).astype(np.float32)},
  }
  return jax.device_put(tree, whole)


def abstract(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def saved(tmp_path):
  """A workdir with checkpoints 10, 20 and 30, of which two are kept."""
  checkpoints = checkpoint.Checkpoints(str(tmp_path), **OPTIONS)
  for step in (10, 20, 30):
    checkpoints.save(step, state(step), {"step": step})
  checkpoints.close()
  return tmp_path


def reopen(workdir, **changes):
  return checkpoint.Checkpoints(str(workdir), **(OPTIONS | changes))


def test_restores_state_and_record_to_the_bit(saved):
  checkpoints = reopen(saved)
  restored = checkpoints.restore(abstract(state()))
  assert_same(restored.state, state(30))
  assert restored.record["step"] == 30
  assert restored.damaged == ()
  assert checkpoints.newest_record()["step"] == 30
  checkpoints.close()


def test_restores_on_another_number_of_devices(saved):
  checkpoints = reopen(saved)
  restored = checkpoints.restore(abstract(state(devices=2)))
  assert_same(restored.state, state(30))
  assert len(restored.state["kernel"].sharding.device_set) == 2
  checkpoints.close()


def test_an_empty_workdir_has_nothing_to_restore(tmp_path):
  checkpoints = reopen(tmp_path)
  assert checkpoints.restore(abstract(state())) is None
  assert checkpoints.newest_record() is None
  checkpoints.close()


@pytest.mark.slow
def test_keeps_the_last_and_every_so_many(tmp_path):
  checkpoints = reopen(tmp_path, keep_every=40)
  for step in range(10, 101, 10):
    checkpoints.save(step, state(step), {})
  checkpoints.wait()
  assert checkpoints.steps() == [40, 80, 90, 100]
  checkpoints.close()


def test_saves_by_time_keep_the_first_of_every_so_many_updates(tmp_path):
  steps = (7, 38, 41, 55, 79, 93, 97, 110, 119)
  for some in (steps[:4], steps[4:]):  # a restart in between
    checkpoints = reopen(tmp_path, every_steps=0, keep_every=40)
    for step in some:
      checkpoints.save(step, state(step), {})
    checkpoints.close()
  reader = checkpoint.Checkpoints.reader(str(tmp_path))
  assert reader.steps() == [41, 93, 110, 119]
  reader.close()


def test_due_by_clock_where_the_processes_meet(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
  checkpoints = reopen(tmp_path, every_steps=0, every_minutes=2)
  now[0] = 119.0
  assert not any(checkpoints.due(step, meeting=True) for step in range(1, 9))
  now[0] = 120.0
  assert not checkpoints.due(9, meeting=False)
  assert checkpoints.due(10, meeting=True)
  checkpoints.save(10, state(), {})
  checkpoints.wait()
  assert not checkpoints.due(11, meeting=True)
  now[0] = 240.0
  assert checkpoints.due(12, meeting=True)
  checkpoints.close()


def test_due_by_count_until_it_is_saved(tmp_path):
  checkpoints = reopen(tmp_path, every_steps=4)
  found = [step for step in range(1, 10) if checkpoints.due(step, False)]
  assert found == [4, 8]
  assert checkpoints.due(10, meeting=True)
  checkpoints.save(10, state(), {})
  checkpoints.wait()
  assert not checkpoints.due(11, meeting=True)
  assert checkpoints.due(12, meeting=False)
  checkpoints.close()


@pytest.mark.slow
def test_a_save_is_put_off_until_the_one_before_it_is_committed(tmp_path):
  noise = np.random.default_rng(0).random(30_000_000, np.float32)
  large = {"kernel": jnp.asarray(noise)}  # which takes some 0.2 s to write
  checkpoints = reopen(tmp_path, every_steps=5)
  assert checkpoints.due(5, meeting=False)
  checkpoints.save(5, large, {})
  assert not checkpoints.due(10, meeting=True)
  assert checkpoints.steps() == []  # it was still being written
  checkpoints.wait()
  assert checkpoints.steps() == [5]
  assert not checkpoints.due(11, meeting=False)
  assert checkpoints.due(12, meeting=True)
  checkpoints.close()


def damage_truncate(folder):
  for file in folder.rglob("d/*"):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def damage_swap(folder):
  """Another state in place of this one: it reads well and is wrong."""
  shutil.rmtree(folder / "state")
  shutil.copytree(folder.with_name("20") / "state", folder / "state")


def damage_record(folder):
  (file,) = (f for f in folder.glob("record/*") if f.name == "metadata")
  file.write_text('{"step": 3')


def damage_remove(folder):
  shutil.rmtree(folder / "state")


@pytest.mark.parametrize(
  "damage", [damage_truncate, damage_swap, damage_record, damage_remove]
)
def test_a_damaged_newest_checkpoint_is_told_and_passed_over(saved, damage):
  damage(saved / "checkpoints" / "30")
  checkpoints = reopen(saved)
  restored = checkpoints.restore(abstract(state()))
  assert restored.record["step"] == 20
  assert_same(restored.state, state(20))
  (sentence,) = restored.damaged
  assert sentence.startswith("Checkpoint 30 is damaged")
  moved = pathlib.Path(sentence.split("moved to ")[1].rstrip("."))
  assert moved.is_dir()
  # It no longer stands in the way of a new checkpoint 30.
  checkpoints.save(30, state(31), {"step": 30})
  checkpoints.wait()
  assert_same(checkpoints.restore(abstract(state())).state, state(31))
  checkpoints.close()


def test_all_damaged_is_an_error_and_not_a_new_run(saved):
  for step in ("20", "30"):
    damage_remove(saved / "checkpoints" / step)
  before = sorted(saved.rglob("*"))
  for _ in range(2):  # nor does the same command take it for one
    checkpoints = reopen(saved)
    told = r"30 is damaged.*20 is damaged.*left where they are"
    with pytest.raises(checkpoint.DamagedError, match=told):
      checkpoints.restore(abstract(state()))
    checkpoints.close()
  assert sorted(saved.rglob("*")) == before


class _OneOfTwo(distributed.Processes):
  """A process beside another one, which sees other checkpoints."""

  def of_first(self, number):
    return number + 1


def test_hosts_with_other_checkpoints_are_told_so(saved):
  shutil.rmtree(saved / "checkpoints" / "30")
  checkpoints = reopen(saved, processes=_OneOfTwo())
  with pytest.raises(RunError, match=r"here: \[20\]\); every host must"):
    checkpoints.restore(abstract(state()))
  checkpoints.close()


def test_a_half_written_checkpoint_is_not_taken_for_whole(saved):
  whole = saved / "checkpoints" / "30"
  shutil.copytree(whole, saved / "checkpoints" / "40.orbax-checkpoint-tmp")
  checkpoints = reopen(saved)
  assert checkpoints.steps() == [20, 30]
  checkpoints.close()
  # Orbax deletes it in the background.
  deadline = time.monotonic() + 300
  while list((saved / "checkpoints").glob("*tmp*")):
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_a_reader_changes_nothing(saved):
  damage_record(saved / "checkpoints" / "30")
  tmp = saved / "checkpoints" / "40.orbax-checkpoint-tmp"
  tmp.mkdir()  # another process may be writing it
  before = sorted(saved.rglob("*"))
  reader = checkpoint.Checkpoints.reader(str(saved))
  restored = reader.restore(abstract(state()))
  assert restored.record["step"] == 20
  assert "damaged" in restored.damaged[0]
  assert "moved" not in restored.damaged[0]
  reader.close()
  assert sorted(saved.rglob("*")) == before


def test_digest_sees_values_places_and_names():
  tree = {"a": jnp.arange(6.0), "b": jnp.arange(4)}
  base = digest.tree_digest(tree)
  assert base == digest.tree_digest(jax.tree.map(jnp.copy, tree))
  variants = [
    {"a": tree["a"].at[2].add(1e-6), "b": tree["b"]},
    {"a": tree["a"][::-1], "b": tree["b"]},
    {"a": tree["a"].at[0].set(-0.0), "b": tree["b"]},
    {"a": tree["a"], "c": tree["b"]},
    {"a": tree["a"], "b": tree["b"].at[0].set(4).at[3].set(0)},
  ]
  found = {digest.tree_digest(variant) for variant in variants}
  assert len(found) == len(variants)
  assert base not in found


def test_digest_sees_two_values_of_a_matrix_change_places():
  matrix = jnp.arange(12.0).reshape(3, 4)
  # Places whose indices have equal sums.
  swapped = matrix.at[0, 1].set(matrix[1, 0]).at[1, 0].set(matrix[0, 1])
  assert digest.tree_digest([matrix]) != digest.tree_digest([swapped])


def test_digest_sees_all_of_64_bits():
  with jax.enable_x64(True):
    base = jnp.arange(1, 7, dtype=jnp.float64)
    variants = [base, base.at[2].add(1e-15), base.at[3].multiply(-1)]
    found = {digest.tree_digest([variant]) for variant in variants}
  assert len(found) == 3


def test_digest_does_not_depend_on_devices():
  assert digest.tree_digest(state(3, 8)) == digest.tree_digest(state(3, 1))
  mesh = sharding.make_mesh()
  split = jax.device_put(np.arange(16.0), sharding.split(mesh))
  assert digest.tree_digest([split]) == digest.tree_digest([jnp.arange(16.0)])


@pytest.mark.parametrize(
  ("path", "mode"),
  [
    ("gs://bucket/run", "COMMIT_FILE"),
    ("/mnt/bucket/run", "COMMIT_FILE"),
    ("/mnt/other bucket/run", "COMMIT_FILE"),
    ("/mnt/bucketed/run", "ATOMIC_RENAME"),
    ("/mnt/bucket/scratch/run", "ATOMIC_RENAME"),
    ("/data/run", "ATOMIC_RENAME"),
  ],
)
def test_atomicity_follows_the_path(path, mode):
  mounts = (
    "overlay / overlay rw 0 0\n"
    "my-bucket /mnt/bucket fuse.gcsfuse rw,nosuid 0 0\n"
    "gcsfuse /mnt/other\\040bucket fuse rw 0 0\n"
    "/dev/sdb /mnt/bucket/scratch ext4 rw 0 0\n"
  )
  assert checkpoint_manager.atomicity_mode(path, mounts).name == mode


def test_on_a_mounted_bucket_a_checkpoint_counts_once_committed(
  tmp_path, monkeypatch
):
  mounts = f"my-bucket {tmp_path} fuse.gcsfuse rw 0 0\n"
  monkeypatch.setattr(buckets, "mounts", lambda: mounts)
  checkpoints = reopen(tmp_path)
  for step in (10, 20):
    checkpoints.save(step, state(step), {"step": step})
  checkpoints.close()
  folders = sorted((tmp_path / "checkpoints").iterdir())
  assert [path.name for path in folders] == ["10", "20"]
  # A write that was cut off: everything is in place but the last file.
  (folders[1] / "commit_success.txt").unlink()
  checkpoints = reopen(tmp_path)
  assert checkpoints.steps() == [10]
  assert checkpoints.restore(abstract(state())).record["step"] == 10
  checkpoints.save(20, state(20), {"step": 20})
  checkpoints.wait()
  assert checkpoints.steps() == [10, 20]
  checkpoints.close()
