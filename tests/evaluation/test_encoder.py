"""The door to encoders: runs, older checkpoints, random weights, damage."""

import functools
import hashlib
import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.commands import evaluate
from byol_flax.evaluation import encoder, finetuning, place, protocol
from byol_flax.models import byol, precision, resnet
from byol_flax.pretrain import train_state
from byol_flax.runs import checkpoint, distributed, run_files
from byol_flax.runs.distributed import Processes
from byol_flax.weights import npz, own_runs
from configs import byol as byol_config
from configs import few_label
from input_pipeline.errors import RunError, UsageError
from tests.evaluation import settings

# In one process of xdist, which makes what they share once.
pytestmark = pytest.mark.xdist_group("encoder")

RNG = np.random.default_rng(3)
ALONE = Processes()
IMAGES = RNG.integers(0, 256, (6, 9, 9, 3), np.uint8)


def mesh_of(devices):
  return sharding.make_mesh(jax.devices()[:devices])


def small_config():
  config = settings.small_config()
  for head in ("projector", "predictor"):
    config.model[head].update({"hidden_size": 16, "output_size": 8})
  return config


@pytest.fixture(scope="module")
def network():
  return byol.make_network(
    **small_config().model, num_classes=10, **precision.types_of("auto", "cpu")
  )


@pytest.fixture(scope="module")
def variables(network):
  """Numbers unlike those of any beginning."""
  made = jax.jit(
    lambda: train_state.init_variables(network, 0, seed=5, image_size=9)
  )()
  return jax.tree.map(
    lambda x: np.asarray(x + RNG.uniform(0, 0.1, x.shape), x.dtype), made
  )


def cut(x):
  """As a state lies on eight devices."""
  return jax.device_put(x, sharding.cut(mesh_of(8), x.shape))


def save(workdir, state, *steps):
  checkpoints = checkpoint.Checkpoints(
    str(workdir), processes=distributed.Processes(), **small_config().checkpoint
  )
  record = {
    "format": 2,
    "config": json.loads(json.dumps(small_config().to_dict())),
    "code_version": "c0de",
    "seconds": 12.34,
    "init": None,
  }
  for step in steps:
    shifted = jax.tree.map(
      lambda x, shift=step: np.asarray(x + shift, x.dtype), state
    )
    checkpoints.save(step, jax.tree.map(cut, shifted), record)
  checkpoints.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, variables):
  """A run of checkpoints 0 and 1, the latter with 1 added to every number."""
  folder = tmp_path_factory.mktemp("run")
  moved = jax.tree.map(np.zeros_like, variables["params"])
  momentum = {"opt_state": [{"trace": moved}, {"count": np.float32(0)}]}
  online = {**variables, **momentum}
  save(folder, {"online": online, "target": variables}, 0, 1)
  return folder


def expected(network, variables, shift):
  """Representations of `IMAGES` by the whole network, [B, F]."""
  shifted = jax.tree.map(lambda x: x + np.float32(shift), variables)
  return _whole(network)(shifted, IMAGES[:, None]).representation[:, 0]


@functools.cache
def _whole(network):
  return jax.jit(functools.partial(network.apply, train=False))


def represent(opened):
  return resnet.represent(opened.module, opened.variables, IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize(("at", "shift"), [("", 1), ("@1", 1), ("@0", 0)])
def test_a_checkpoint_opens_on_any_devices(
  run, network, variables, at, shift, devices
):
  opened = encoder.open_encoder(f"{run}{at}", mesh_of(devices))
  np.testing.assert_allclose(
    represent(opened), expected(network, variables, shift), rtol=1e-5
  )
  assert opened.has_averages
  assert opened.crop.size == 9
  told = opened.provenance
  assert told["encoder"] == f"{run}@{shift}"
  assert (told["step"], told["training_seconds"]) == (shift, 12.3)
  assert told["architecture"]["width"] == 0.25
  json.dumps(told)


@pytest.mark.slow
def test_a_weight_file_opens_the_same_way(run, network, variables, tmp_path):
  path = str(tmp_path / npz.FILE)
  found = own_runs.read(f"{run}@1", "--encoder", whole=True)
  alone = own_runs.read(f"{run}@1", "--encoder", whole=False)
  assert found.details == alone.details
  npz.write(path, found)
  opened = encoder.open_encoder(
    path, mesh_of(3), read_config=lambda name: byol_config.get_config()
  )
  np.testing.assert_array_equal(
    represent(opened), represent(encoder.open_encoder(f"{run}@1", mesh_of(3)))
  )
  assert opened.crop.size == 9
  told = opened.provenance
  assert (told["encoder"], told["step"]) == (path, 1)
  assert (
    told["sha256"]
    == hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
  )
  json.dumps(opened.config)  # evaluations that train write it down
  assert told["trained_by"] == "byol"
  assert told["trained_on"] == small_config().data.to_dict()
  np.testing.assert_array_equal(
    npz.leaves(found)["momentum/encoder/stem_conv/kernel"].load(), 1
  )


@pytest.mark.slow
def test_a_network_trained_with_labels_opens_the_same_way(
  tmp_path, network, variables
):
  kept = ("encoder", "classifier")
  state = {
    name: {part: tree[part] for part in kept if part in tree}
    for name, tree in variables.items()
  }
  save(tmp_path, {**state, "step": np.float32(0)}, 0)
  found = own_runs.read(str(tmp_path), "--encoder", whole=False)
  assert found.details["trained_by"] == "labels"
  opened = encoder.open_encoder(str(tmp_path), mesh_of(8))
  np.testing.assert_allclose(
    represent(opened), expected(network, variables, 0), rtol=1e-5
  )


@pytest.mark.slow
def test_the_config_alone_needs_no_weights(run, variables, monkeypatch):
  """What preflight asks; the shapes are those of the weights all the same."""

  def refuse(*given):
    raise AssertionError("weights were read")

  monkeypatch.setattr(checkpoint.Checkpoints, "restore_part", refuse)
  found = encoder.config_of(f"{run}@0", lambda path: None)
  assert found["model"] == small_config().model.to_dict()
  opened = encoder.without_weights(found, mesh_of(8))
  assert jax.tree.map(lambda x: x.shape, opened.variables) == {
    name: jax.tree.map(lambda x: x.shape, tree["encoder"])
    for name, tree in variables.items()
  }


@pytest.mark.slow
def test_random_weights_are_those_that_a_run_begins_with(network):
  opened = encoder.open_encoder(
    "random:mine.py",
    mesh_of(8),
    read_config={"mine.py": small_config()}.__getitem__,
  )
  begun = jax.jit(
    lambda: train_state.init_variables(network, 0, seed=0, image_size=9)
  )()
  jax.tree.map(
    np.testing.assert_array_equal,
    opened.variables["params"],
    begun["params"]["encoder"],
  )
  assert not opened.has_averages


def test_an_encoder_is_shown_images_as_it_was_trained(variables):
  """By every function of the evaluations that shows it some."""
  scaled = {}
  for how in ("imagenet", "unit"):
    config = small_config()
    config.model.input_scaling = how
    opened = encoder.without_weights(config, mesh_of(1))
    own = {name: tree["encoder"] for name, tree in variables.items()}
    network = byol.make_network(
      **config.model, num_classes=10, **precision.types_of("auto", "cpu")
    )
    scaled[how] = expected(network, variables, 0)
    np.testing.assert_allclose(
      resnet.represent(opened.module, own, IMAGES), scaled[how], rtol=1e-5
    )
    width = scaled[how].shape[1]
    head = {"kernel": np.eye(width, dtype="f4"), "bias": np.zeros(width, "f4")}
    logits, _ = finetuning.forward(
      opened.module,
      {"encoder": own["params"], "classifier": head},
      {"encoder": own["batch_stats"]},
      IMAGES,
      train=False,
    )
    np.testing.assert_allclose(logits, scaled[how], rtol=1e-4, atol=1e-5)
  assert np.max(np.abs(scaled["imagenet"] - scaled["unit"])) > 0.01


def test_what_cannot_be_opened_is_told(run, tmp_path):
  for where, told in (
    (str(tmp_path), "there is no checkpoint in"),
    (f"{run}@7", "that run has no checkpoint 7; it has 0, 1."),
    ("random", r"expected random:CONFIG, such as"),
  ):
    with pytest.raises(UsageError, match=told):
      encoder.open_encoder(where, mesh_of(1))


def test_a_config_of_an_evaluation_has_no_encoder():
  with pytest.raises(UsageError, match="expected a config of pre-training"):
    evaluate.read_run_config("configs/few_label.py")


@pytest.mark.slow
def test_damage_is_told_and_no_other_taken(tmp_path, variables):
  states = [
    {"online": jax.tree.map(lambda x, i=i: x + np.float32(i), variables)}
    for i in range(2)
  ]
  save(tmp_path, states[0], 0)
  other = tmp_path / "other"
  save(other, states[1], 1)
  state = tmp_path / "checkpoints/0/state"
  state.rename(tmp_path / "aside")
  (other / "checkpoints/1/state").rename(state)
  with pytest.raises(RunError, match="online/batch_stats/encoder differs"):
    encoder.open_encoder(str(tmp_path), mesh_of(1))


def test_weights_that_are_not_finite_are_told(tmp_path, variables):
  spoilt = jax.tree.map(np.copy, variables)
  jax.tree.leaves(spoilt["params"]["encoder"])[3].flat[-1] = np.nan
  save(tmp_path, {"online": spoilt}, 0)
  with pytest.raises(RunError, match="not finite"):
    encoder.open_encoder(str(tmp_path), mesh_of(1))


def test_the_paths_of_an_older_run_are_made_whole(run, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "photos" / "test" / "a").mkdir(parents=True)
  mesh = mesh_of(1)
  opened = encoder.open_encoder(str(run), mesh)
  opened.config["data"]["name"] = "folder:~/photos"
  setting = protocol.Setting(
    config=few_label.get_config(),
    encoder=opened,
    workdir="",
    mesh=mesh,
    processes=Processes(),
    tell=print,
    console=sys.stderr,
  )
  with pytest.raises(UsageError, match=f"{tmp_path}/photos"):
    setting.open_split("test_split")


def test_a_folder_holds_one_evaluation(tmp_path):
  mine, run, foreign = (tmp_path / name for name in ("mine", "run", "foreign"))
  for folder in (mine, run, foreign):
    folder.mkdir()
  identity = {"config": {"k": 5, "num_workers": 1}, "encoder": {"step": 3}}
  place.claim(str(mine), identity, ALONE)
  place.claim(
    str(mine), {**identity, "config": {"k": 5, "num_workers": 2}}, ALONE
  )
  newer = {"step": 3, "code_version": "c0de"}
  place.claim(str(mine), {**identity, "encoder": newer}, ALONE)
  # Nothing was begun there, so it may be another evaluation.
  place.claim(str(mine), {**identity, "config": {"k": 6}}, ALONE)
  place.claim(str(mine), identity, ALONE)
  (mine / place.RESULT).write_text("{}")
  with pytest.raises(UsageError, match=r"another evaluation \(config.k: 5 th"):
    place.claim(str(mine), {**identity, "config": {"k": 6}}, ALONE)
  kinds = [{"protocol": kind, kind: 1} for kind in ("knn", "depth")]
  other = tmp_path / "other"
  other.mkdir()
  place.claim(str(other), {**identity, "config": kinds[0]}, ALONE)
  (other / place.RESULT).write_text("{}")
  told = r"another evaluation \(config.protocol: knn there, depth now\). Give"
  with pytest.raises(UsageError, match=told):
    place.claim(str(other), {**identity, "config": kinds[1]}, ALONE)
  # A key that came later, with what the code did before it had the key.
  grown = identity["config"] | {"train_size": 0}
  place.claim(str(mine), {**identity, "config": grown}, ALONE)
  with pytest.raises(
    UsageError, match=r"\(config.train_size: 0 there, 9 now\)"
  ):
    place.claim(
      str(mine), {**identity, "config": grown | {"train_size": 9}}, ALONE
    )
  (run / run_files.METRICS).write_text("{}\n")
  with pytest.raises(UsageError, match="is the folder of a training run"):
    place.claim(str(run), identity, ALONE)
  assert sorted(path.name for path in run.iterdir()) == [run_files.METRICS]
