"""Breaks one line at a time and sees whether a test fails.

Command: python tests/mutate.py
Works on a copy of the tree in a temporary folder; prints a line per mutation.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
# file, line as it is, line broken, tests that should fail
MUTATIONS = (
  (
    "byol_flax/weights/haiku_names.py",
    '("mean", "average"): "mean",',
    '("mean", "hidden"): "mean",',
    "tests/weights/test_deepmind.py -k style",
  ),
  (
    "byol_flax/weights/deepmind.py",
    "if total > size:",
    "if total < 0:",
    "tests/weights/test_deepmind.py -k share",
  ),
  (
    "byol_flax/weights/deepmind.py",
    "if counts == {2 * updates}:",
    "if counts:",
    "tests/weights/test_deepmind.py -k step",
  ),
  (
    "byol_flax/weights/pickle_calls.py",
    "if (module, name) not in self._admitted:",
    'if module == "posix":',
    "tests/weights/test_pickle_machine.py -k hostile",
  ),
  (
    "byol_flax/weights/pickle_calls.py",
    "if self._passed > _MAX_PASSED:",
    "if self._passed < 0:",
    "tests/weights/test_pickle_machine.py -k passed",
  ),
  (
    "byol_flax/weights/pickle_input.py",
    "if not 0 <= length <= left:",
    "if not 0 <= length:",
    "tests/weights/test_pickle_machine.py -k lengths",
  ),
  (
    "byol_flax/weights/pickle_machine.py",
    "not isinstance(key, str) and not _is_small_integer(key)",
    "isinstance(key, list)",
    "tests/weights/test_pickle_machine.py -k hostile",
  ),
  (
    "byol_flax/weights/pickled_arrays.py",
    "or function.name not in _RECONSTRUCT:",
    "or not function.name:",
    "tests/weights/test_pickled_arrays.py -k nest",
  ),
  (
    "byol_flax/pretrain/losses.py",
    "crossed = projection[:, ::-1]",
    "crossed = projection",
    "tests/pretrain/test_losses.py",
  ),
  (
    "byol_flax/pretrain/objective.py",
    """if settings.target != "online":""",
    """if settings.target == "average":""",
    "tests/pretrain/test_objective.py -k receives",
  ),
  (
    "byol_flax/pretrain/losses.py",
    "logits = jnp.where(itself, -jnp.inf, logits / temperature)",
    "logits = logits / temperature",
    "tests/pretrain/test_losses.py -k infonce",
  ),
  (
    "byol_flax/pretrain/scaling.py",
    "return target_decay(step) ** factor",
    "return target_decay(step)",
    "tests/pretrain/test_scaling.py",
  ),
  (
    "byol_flax/pretrain/schedules.py",
    "rising = peak * step / jnp.maximum(warmup_steps, 1)",
    "rising = peak * (step + 1) / jnp.maximum(warmup_steps, 1)",
    "tests/pretrain/test_schedules.py",
  ),
  (
    "byol_flax/pretrain/optimizers.py",
    "    optax.trace(decay=momentum),\n"
    "    optax.scale_by_learning_rate(learning_rate),",
    "    optax.scale_by_learning_rate(learning_rate),\n"
    "    optax.trace(decay=momentum),",
    "tests/pretrain/test_optimizers.py",
  ),
  (
    "byol_flax/pretrain/train_state.py",
    "    online.params,\n  )\n  return target.replace(",
    "    target.params,\n  )\n  return target.replace(",
    "tests/pretrain/test_train_step.py -k target_moves",
  ),
  (
    "byol_flax/pretrain/train_step.py",
    "lambda g: g / accumulation_steps",
    "lambda g: g",
    "tests/pretrain/test_train_step.py -k accumulation_is",
  ),
  (
    "byol_flax/models/batch_norm.py",
    "axes = (0, *range(2, x.ndim - 1))",
    "axes = (0, 1, *range(2, x.ndim - 1))",
    "tests/models/test_models.py -k batch_norm",
  ),
  (
    "input_pipeline/augment.py",
    "first = sample_view(self.view1, height, width, rng)",
    "first = sample_view(self.view2, height, width, rng)",
    "tests/input_pipeline/test_augment.py",
  ),
  (
    "input_pipeline/retried_crops.py",
    "if h * w * _WINDOWS >= whole:",
    "if h * w:",
    "tests/input_pipeline/test_retried_crops.py",
  ),
  (
    "input_pipeline/chunk_draws.py",
    "_MULTIPLY if view[17] and k == _ADD else k",
    "k",
    "tests/input_pipeline/test_chunk_draws.py -k chunk_are",
  ),
  (
    "byol_flax/models/heads.py",
    "elif self.final_norm:",
    "elif False:",
    "tests/models/test_heads.py -k numpys",
  ),
  (
    "byol_flax/models/resnet.py",
    "pixels.scale(images, self.input_scaling,",
    'pixels.scale(images, "imagenet",',
    "tests/evaluation/test_encoder.py -k was_trained",
  ),
  (
    "byol_flax/pretrain/objective.py",
    "loss *= settings.multiplier",
    "pass",
    "tests/pretrain/test_objective.py -k simclr",
  ),
  (
    "input_pipeline/loading.py",
    "block = (self._start_step + batch) * self._process_count",
    "block = batch * self._process_count",
    "tests/input_pipeline/test_pipeline.py -k restarts",
  ),
  (
    "input_pipeline/loading.py",
    "    block += self._process_index\n",
    "",
    "tests/input_pipeline/test_pipeline.py -k restarts",
  ),
  (
    "input_pipeline/loading.py",
    "first = block * self._rows + chunk * self._chunk_rows",
    "first = block * self._rows",
    "tests/input_pipeline/test_pipeline.py"
    " tests/input_pipeline/test_loading.py",
  ),
  (
    "input_pipeline/handover.py",
    "self._flags[worker, free[0]] = _TAKEN",
    "self._flags[worker, free[0]] = _FREE",
    "tests/input_pipeline/test_loading.py",
  ),
  (
    "byol_flax/pretrain/device_augment.py",
    "out = jnp.where(draw.flip, out[:, ::-1], out)",
    "out = jnp.where(draw.flip, out, out)",
    "tests/pretrain/test_device_augment.py",
  ),
  (
    "input_pipeline/prepare/shards.py",
    'if before["plan"] != plan:',
    "if False:",
    "tests/input_pipeline/prepare/test_prepare.py -k another_set",
  ),
  (
    "byol_flax/preflight/estimate.py",
    "most = sum(one.total_steps * max(_times(one))",
    "most = sum(one.total_steps * min(_times(one))",
    "tests/preflight/test_preflight.py -k arithmetic",
  ),
  (
    "byol_flax/preflight/compiler.py",
    'cost["optimal_seconds"] + len(_UNKNOWN_COST.findall(text))',
    'cost["optimal_seconds"]',
    "tests/preflight/test_preflight_compiled.py -k operations_without",
  ),
  (
    "byol_flax/preflight/hlo.py",
    "        inside *= loops\n",
    "        pass\n",
    "tests/preflight/test_preflight.py -k cycles",
  ),
  (
    "byol_flax/preflight/apart.py",
    "  parents.end_with_parent()\n",
    "",
    "tests/preflight/test_preflight_command.py -k killed",
  ),
  (
    "byol_flax/slices.py",
    '"v4-", 2, 1, 30.75, 275.0, 1.05, 240',
    '"v4-", 2, 1, 30.75, 275.0, 0.94, 240',
    "tests/test_slices.py -k near_the_peak",
  ),
  (
    "byol_flax/runs/checkpoint.py",
    'if digest.tree_digest(state) == record["digest"]:',
    "if digest.tree_digest(state):",
    "tests/runs/test_checkpoint.py -k damaged",
  ),
  (
    "byol_flax/runs/loop.py",
    "      if reporting or saving or evaluating:",
    "      if reporting:",
    "tests/runs/test_loop.py -k non_finite",
  ),
  (
    "byol_flax/runs/loop.py",
    "    outlets.save(done, state, seconds)\n",
    "    pass\n",
    "tests/runs/test_preemption.py -k sigterm",
  ),
  (
    "byol_flax/runs/distributed.py",
    "  if sigterms:  #",
    "  if False:  #",
    "tests/runs/test_distributed.py -k handed_on",
  ),
  (
    "byol_flax/runs/peers/watch.py",
    "if now - moved > self._deadlines.stall_seconds:",
    "if now - moved > 1e9:",
    "tests/runs/test_peers.py -k hold_up",
  ),
  (
    "byol_flax/runs/peers/watch.py",
    "if now - peer.heard > self._deadlines.silence_seconds:",
    "if now - peer.heard > 1e9:",
    "tests/runs/test_peers.py -k silent",
  ),
  (
    "byol_flax/sharding.py",
    "key=lambda d: (d.process_index, d.id)",
    "key=lambda d: d.id",
    "tests/runs/test_distributed.py -k side_by_side",
  ),
  (
    "byol_flax/runs/checkpoint.py",
    "mode=checkpoint_manager.atomicity_mode(workdir, buckets.mounts())",
    "mode=ocp.options.AtomicityMode.AUTO",
    "tests/runs/test_checkpoint.py -k mounted_bucket",
  ),
  (
    "byol_flax/models/batch_norm.py",
    "sign = jnp.where(scale < 0, -1, 1)",
    "sign = jnp.where(scale < 0, 1, 1)",
    "tests/models/test_models.py -k pool_first",
  ),
  (
    "byol_flax/sharding.py",
    "if size and size % unit == 0:",
    "if size and size % unit == 1:",
    "tests/test_sharding.py",
  ),
  (
    "byol_flax/runs/digest.py",
    "position += index * jnp.uint32(stride % 2**32)",
    "position += index",
    "tests/runs/test_checkpoint.py -k digest",
  ),
  (
    "byol_flax/preflight/advice.py",
    "      first += 1\n    tried = first",
    "      first += 2\n    tried = first",
    "tests/preflight/test_preflight.py -k smallest_change",
  ),
)


def main():
  survivors = 0
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "tree"
    ignore = shutil.ignore_patterns(".git", ".venv", "runs", "*_cache")
    shutil.copytree(ROOT, copy, ignore=ignore)
    for name, line, broken, tests in MUTATIONS:
      path = copy / name
      text = path.read_text()
      if text.count(line) != 1:
        sys.exit(f"{name} has {text.count(line)} times: {line}")
      path.write_text(text.replace(line, broken))
      command = [sys.executable, "-m", "pytest", "-x", *tests.split()]
      result = subprocess.run(
        command, cwd=copy, capture_output=True, text=True, check=False
      )
      path.write_text(text)
      failed = [
        row.split(" - ")[0].removeprefix("FAILED ")
        for row in result.stdout.splitlines()
        if row.startswith("FAILED")
      ]
      survivors += not failed
      first = line.strip().splitlines()[0]
      print(f"{name}: {first}\n  -> {failed[0] if failed else 'SURVIVED'}")
      sys.stdout.flush()
  sys.exit(survivors)


if __name__ == "__main__":
  main()
