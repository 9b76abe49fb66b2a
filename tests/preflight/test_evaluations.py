"""Preflight of evaluations: what is compiled, how often it runs, mistakes."""

import io
import json
import math

import jax
import pytest

from byol_flax import sharding, slices
from byol_flax.benchmarks import input_stages
from byol_flax.evaluation import encoder
from byol_flax.evaluation import protocols as evaluation_protocols
from byol_flax.preflight import (
  advice,
  estimate,
  evaluations,
  jobs,
  protocols,
  storage,
  verdict,
)
from byol_flax.slices import GIB
from configs import (
  byol,
  few_label,
  finetune,
  knn,
  linear,
  semi_supervised,
  supervised,
  transfer,
)
from input_pipeline.errors import UsageError
from tests.evaluation import settings
from tests.preflight.test_preflight import compiled
from tests.preflight.test_preflight_command import preflight

VALID, TEST, TRAIN = 10_009, 50_000, 1_281_167  # of ImageNet


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
  """No test here asks how fast the input is, which preflight measures."""
  monkeypatch.setattr(input_stages, "_PIXELS", 1_000_000)
  monkeypatch.setattr(input_stages, "_ROUNDS", 1)


@pytest.fixture(scope="module")
def mesh():
  return sharding.make_mesh()


@pytest.fixture(scope="module")
def opened(mesh):
  return encoder.without_weights(settings.small_config(), mesh)


def programs(config, opened, mesh, name="imagenet2012"):
  counts, classes = evaluations.count_images(config, name, None)
  job = jobs.Job(config, opened, mesh, counts, classes)
  found = protocols.PROTOCOLS[config.protocol].programs(job)
  for program in found:  # all are given what they take
    jax.eval_shape(
      lambda *given, program=program: program.function(
        *given, **program.static
      ),
      *program.arguments,
    )
  return {program.name: program for program in found}


def calls(found):
  return {name: program.calls for name, program in found.items()}


def batches(*counts, size):
  return sum(math.ceil(count / size) for count in counts)


def test_a_sweep_of_linear_evaluation_is_one_training(opened, mesh):
  config = linear.get_config("table7=1")
  config.evaluate_every_steps = 50_000
  updates = 80 * (TRAIN - VALID) // 1024
  # Twice during each training, and when one head is chosen.
  looks = 3 * batches(VALID, size=1024) + batches(TEST, size=1024)
  found = programs(config, opened, mesh)
  assert calls(found) == {"update": 2 * updates, "guess": 2 * looks}
  state, variables, batch = found["update"].arguments
  assert state.weights["kernel"].shape[::2] == (10, 1000)  # heads, classes
  assert variables is opened.variables
  assert batch["image"].sharding.shard_shape(batch["image"].shape)[0] == 128


def test_released_evaluation_has_no_validation_split(opened, mesh):
  found = calls(programs(linear.get_config("released=1"), opened, mesh))
  assert found == {
    "update": 80 * TRAIN // 4096,
    "guess": batches(TEST, size=4096),
  }


@pytest.mark.slow
def test_a_grid_of_fine_tuning_counts_its_budget_and_the_last_training(
  opened, mesh
):
  config = finetune.get_config("cifar10")
  whole = calls(programs(config, opened, mesh, "cifar10"))
  valid, test = batches(5000, size=256), batches(10_000, size=256)
  assert whole == {"update": 57 * 20_000, "logits": 56 * valid + test}
  config.budget = 3
  part = calls(programs(config, opened, mesh, "cifar10"))
  assert part == {"update": 4 * 20_000, "logits": 3 * valid + test}


@pytest.mark.slow
def test_shares_of_the_labels_are_trained_on_in_turn(opened, mesh, tmp_path):
  config = semi_supervised.get_config()
  found = calls(programs(config, opened, mesh))
  parts = [round(share * (TRAIN - VALID)) for share in (0.01, 0.1)]
  updates = [int(e * n / 1024) for e in (30, 50) for n in parts]
  passes = 10 * batches(VALID, size=1024) + batches(TEST, size=1024)
  assert found == {"update": 5 * sum(updates), "guess": 2 * passes}
  names = tmp_path / "names.txt"
  names.write_text("".join(f"n01/{i}.JPEG\n" for i in range(12_811)))
  config.subset_file = str(names)
  found = calls(programs(config, opened, mesh))
  updates = [int(epochs * 12_811 / 1024) for epochs in (30, 50)]
  assert found == {"update": 5 * sum(updates), "guess": passes}


def test_a_network_with_labels_is_trained_once(opened, mesh):
  found = calls(programs(supervised.get_config(), opened, mesh))
  assert found == {
    "update": 200 * TRAIN // 1024,
    "guess": batches(TEST, size=1024),
  }


def test_a_bank_lies_beside_the_encoder_and_is_searched_in_tiles(opened, mesh):
  found = programs(knn.get_config(), opened, mesh)
  bank, test = batches(TRAIN, size=512), batches(TEST, size=512)
  assert calls(found) == {
    "represent": bank + test,
    "write": bank,
    "scale": 1,
    "search": test,
  }
  values = found["represent"].beside.values
  width = opened.representation.shape[-1]
  assert values.shape == (512 * bank, width)
  assert values.sharding.shard_shape(values.shape) == (64 * bank, width)
  tile = 2**25 // max(512, width)
  assert found["search"].loops == math.ceil(64 * bank / tile) > 1


def test_representations_on_few_labels_are_compared_in_turn(opened, mesh):
  read = batches(TRAIN, TEST, size=360)
  search = batches(TEST, size=256)
  config = few_label.get_config("baselines=1")
  found = programs(config, opened, mesh)
  assert calls(found) == {
    **{"represent": 2 * read, "scale": 2, "search": 2 * search},
    **{"pixels": read, "scale pixels": 1, "search pixels": search},
  }
  size = opened.crop.size
  for name, width in (
    ("search", opened.representation.shape[-1]),
    ("search pixels", size * size * 3),
  ):
    bank, queries = found[name].arguments
    assert bank.values.shape == (8 * math.ceil(TRAIN / 8), width)
    assert bank.values.sharding.shard_shape(bank.values.shape)[0] == 160_146
    assert queries.sharding.shard_shape(queries.shape) == (256, width)
  assert found["represent"].beside is opened.variables  # the other encoder's
  alone = programs(few_label.get_config(), opened, mesh)
  assert alone["represent"].beside == ()
  assert calls(alone) == {"represent": read, "scale": 1, "search": search}


def test_transfer_reads_each_image_once(opened, mesh):
  config = transfer.get_config("cifar10")
  found = programs(config, opened, mesh, "cifar10")
  assert calls(found) == {
    "represent": batches(45_000, 5_000, 10_000, size=256),
    "fit": 0,
  }
  problem = found["fit"].arguments[0]
  assert problem[0].shape == (50_000, opened.representation.shape[-1])


def test_images_are_held_out_of_train():
  config = finetune.get_config()
  config.valid_split, config.valid_per_class = "", 20
  config.train_split = "train"
  counts, classes = evaluations.count_images(config, "cifar10", None)
  assert classes == 10
  assert [len(counts[f"{name}_split"]) for name in ("train", "valid")] == [
    49_800,
    200,
  ]


def ask(config, where, slice_name="v3-8"):
  return evaluations.subject(
    config,
    where,
    slices.find(slice_name),
    read_config=lambda path: byol.get_config(),
    stream=io.StringIO(),
  )


def test_every_protocol_can_be_asked_about():
  assert protocols.PROTOCOLS.keys() == evaluation_protocols.PROTOCOLS.keys()


def test_input_is_measured_on_what_is_read():
  config = linear.get_config()  # its train_without_valid is made of train
  config.data_name = "digits"
  assert ask(config, "random:x").measured_on == "images of digits"


def test_mistakes_are_told_before_anything_is_compiled(tmp_path):
  unknown = linear.get_config()
  unknown.data_name, unknown.data_dir = "oxford_iiit_pet", str(tmp_path)
  for config, where, words in (
    (linear.get_config(), None, "needs the encoder that is evaluated"),
    (linear.get_config(), "random", "expected random:CONFIG"),
    (linear.get_config(), str(tmp_path), "--encoder"),
    (unknown, "random:x", "oxford_iiit_pet"),
  ):
    with pytest.raises(UsageError, match=words):
      ask(config, where)


def test_a_batch_that_the_devices_cannot_share_is_told(opened, mesh):
  config = linear.get_config()
  config.batch_size = 1020
  with pytest.raises(UsageError, match="1016 or 1024"):
    programs(config, opened, mesh)


@pytest.mark.slow
def test_only_where_nothing_is_trained_a_smaller_batch_is_advised():
  found = advice.smaller_batches(knn.get_config(), 32)
  assert [change.config.batch_size for change in found] == [256, 128, 64, 32]
  assert found[0].flags == "--config.batch_size=256"
  asked = ask(knn.get_config(), "random:x")
  assert len(asked.changes) == 6
  assert "synthetic" in asked.measured_on
  assert not ask(linear.get_config(), "random:x").changes


def test_a_larger_slice_must_hold_the_memory():
  def larger(peak_bytes):
    found = advice.larger_slice(
      compiled(peak_bytes=peak_bytes), slices.find("v3-8")
    )
    return found and found.name

  assert larger(20 * GIB) == "v3-32"
  assert larger(80 * GIB) == "v3-64"
  assert larger(4000 * GIB) is None
  assert larger(0) == "v3-32"  # the compiler did not tell


SEVERAL = [
  compiled(name="guess", total_steps=100, peak_bytes=5 * GIB),
  compiled(),
  compiled(name="fit", total_steps=0, beside_bytes=GIB),
]


def test_the_time_of_an_evaluation_is_that_of_all_its_programs():
  slice_ = slices.find("v3-8")
  found = estimate.estimate(
    SEVERAL,
    slice_,
    accumulation_steps=1,
    images_per_core_second=20.0,
    input_cores=96,
    price_per_device_hour=None,
  )
  assert found.hours == pytest.approx(36_100 * 0.2 / 3600)
  assert found.least_hours == pytest.approx(36_100 * 0.1 / 3600)
  lines = estimate.words(SEVERAL, found, slice_, input_measured="of stone")
  text = "\n".join(lines)
  assert "fits: 5.0 of 15.5 GiB of a device (guess)" in text
  assert "guess      200.0 ms by the cycles, 100 ×; 5.00 GiB" in text
  assert "fit        time unknown" in text
  assert "run        100 × guess, 36,000 updates of 256 images: 2h 00m" in text
  record = estimate.record(SEVERAL, found, slice_)
  assert record["step"]["name"] == "update"
  assert [one["name"] for one in record["others"]] == ["guess", "fit"]


@pytest.mark.slow
def test_a_program_that_does_not_fit_decides(tmp_path):
  config = knn.get_config()

  def answer(config):
    fits = config.batch_size <= 128
    peak = config.batch_size * GIB // 12
    return [
      compiled(name="represent"),
      compiled(name="search", fits=fits, peak_bytes=peak),
    ]

  asked = ask(config, "random:x")
  subject = verdict.Subject(**{**vars(asked), "compile": answer})
  stream = io.StringIO()
  status = verdict.preflight(
    subject,
    slices.find("v3-8"),
    price=1.0,
    out=str(tmp_path / "out.json"),
    stream=stream,
  )
  assert status == verdict.DOES_NOT_FIT
  text = stream.getvalue()
  assert "memory     search does not fit: 42.7 GiB where a device has" in text
  assert "advice     --config.batch_size=128\n" in text
  assert "left out   " in text
  answer = json.loads((tmp_path / "out.json").read_text())
  assert (answer["step"]["name"], answer["run"]) == ("search", None)
  assert answer["advice"]["run"]["price"] > 0
  assert answer["encoder"] == "random:x"


def told_of(tmp_path, compile_, slice_name="v3-8", **changes):
  """Status, words and record of an evaluation that a function compiles."""
  asked = vars(ask(knn.get_config(), "random:x"))
  stream, out = io.StringIO(), tmp_path / "out.json"
  status = verdict.preflight(
    verdict.Subject(**{**asked, "compile": compile_, **changes}),
    slices.find(slice_name),
    price=None,
    out=str(out),
    stream=stream,
  )
  return status, stream.getvalue(), json.loads(out.read_text())


@pytest.mark.slow
def test_a_larger_slice_is_named_where_no_setting_fits(tmp_path):
  def fail(config):
    return [compiled(fits=False, peak_bytes=80 * GIB)]

  status, text, record = told_of(tmp_path, fail)
  assert status == verdict.DOES_NOT_FIT
  assert "no setting fits; take a larger slice, such as v3-64\n" in text
  assert (record["run"], record["advice"]) == (None, None)
  enormous = compiled(fits=False, peak_bytes=4000 * GIB)
  _, text, _ = told_of(tmp_path, lambda config: [enormous])
  assert "no setting fits; take a larger slice of another kind\n" in text


@pytest.mark.slow
def test_a_smaller_slice_and_the_storage_are_told_where_it_fits(tmp_path):
  config = knn.get_config()
  config.batch_size = 4096
  files = storage.Files(mean_bytes=110e3, count=1_000_000, in_shards=True)
  status, text, record = told_of(
    tmp_path,
    lambda config: [compiled(peak_bytes=2 * GIB)],
    "v3-512",
    config=config,
    files=files,
  )
  assert status == verdict.FITS
  assert "advice     v3-128 should do too, in up to 4 times as long " in text
  assert "\nstorage    at most " in text
  assert record["advice"]["slice"] == "v3-128"
  assert record["storage"]["bytes"] > 0


@pytest.mark.slow
def test_linear_evaluation_is_compiled(tmp_path, tpu_compiler):
  out = tmp_path / "out.json"
  run = preflight(
    out,
    "--slice=v3-8",
    "--encoder=random:configs/byol_digits.py",
    "--config.batch_size=64",
    config="configs/linear.py",
  )
  words, errors = run.communicate(timeout=600)
  assert (run.returncode, errors) == (0, "")
  assert "guess      " in words
  answer = json.loads(out.read_text())
  (guess,) = answer["others"]
  assert answer["step"]["name"] == "update"
  assert answer["step"]["fits"]
  # Forward passes cost most of both, and are the same.
  assert 1 < answer["step"]["flops"] / guess["flops"] < 3
  assert answer["run"]["hours"] > 0
