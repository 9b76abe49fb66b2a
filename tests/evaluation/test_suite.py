"""A suite on digits: parts in turn, what cannot be, a kill, the report."""

import io
import json

import jax
import jax.numpy as jnp
import pytest

from byol_flax.commands import config_bounds, config_file
from byol_flax.evaluation import place, protocols, suite
from byol_flax.runs.distributed import Processes
from configs import detection, finetune, linear, semi_supervised
from input_pipeline import paths
from input_pipeline.errors import UsageError
from tests.cut_off import Killed, Out
from tests.evaluation import settings

FLAGS = (
  "--config.data_dir=/nowhere",
  "--config.knn.neighbours=(5,)",
  "--config.knn.num_workers=0",
  "--config.linear.num_workers=0",
  "--config.linear.batch_size=64",
  "--config.linear.epochs=0.3",
  "--config.linear.augmentations=('crop_flip',)",
  "--config.linear.logit_regularisation=(False,)",
)


def parts_of(arg, *flags, encoder=None):
  flag = config_file.of_suite(f"paper{arg}", encoder)
  return config_bounds.parts_of(config_file.load_config([flag, *flags]))


def evaluate(workdir, opened, parts, out):
  mesh = settings.mesh_of(2)
  session = protocols.Session(
    encoder=opened,
    mesh=mesh,
    processes=Processes(),
    out=out,
    console=io.StringIO(),
  )
  suite.run(session, "paper", parts, parts_of(""), str(workdir))
  return json.loads((workdir / suite.REPORT).read_text())


def test_a_device_with_too_little_memory_is_told_apart():
  with pytest.raises(jax.errors.JaxRuntimeError) as caught:
    jnp.zeros(2**45, jnp.uint8).block_until_ready()
  assert "a device has too little memory" in suite.lack_of_memory(caught.value)
  other = jax.errors.JaxRuntimeError("INTERNAL: a fault\nRESOURCE_EXHAUSTED")
  assert suite.lack_of_memory(other) == ""


@pytest.mark.slow
def test_a_suite_that_was_killed_goes_on_and_reports_what_it_left_out(
  tmp_path,
):
  opened = settings.untrained(settings.mesh_of(2))
  names = "knn,transfer_pets,depth,detection,semi_supervised_1,linear"
  parts = parts_of(f":{names}", *FLAGS)
  with pytest.raises(Killed):
    evaluate(tmp_path, opened, parts, Out(last="linear, part 5 of 6"))
  results = [path.parent.name for path in tmp_path.glob("*/result.json")]
  assert results == ["knn"]
  begun = json.loads((tmp_path / suite.REPORT).read_text())
  assert begun["parts"]["linear"]["why_not"] == "its turn has not come"
  written = (tmp_path / "knn" / place.RESULT).stat().st_mtime_ns

  out = Out()
  report = evaluate(tmp_path, opened, parts, out)
  assert (tmp_path / "knn" / place.RESULT).stat().st_mtime_ns == written
  assert "1 sweep(s) of 0.3 epochs" in out.getvalue()
  assert "--suite=paper:knn,semi_supervised_1" in out.getvalue()
  done = {name for name, x in report["parts"].items() if x["result"]}
  assert done == {"knn", "linear"}
  why = {n: x["why_not"] for n, x in report["parts"].items() if x["why_not"]}
  absent = {"transfer_pets", "depth", "detection"}
  assert why.keys() == {*absent, "semi_supervised_1"}
  assert "/VOCdevkit/VOC2007" in why["detection"]
  assert "nyu_depth_v2" in why["depth"]
  assert "oxford_iiit_pet should be prepared" in why["transfer_pets"]
  assert "more than the 10 images" in why["semi_supervised_1"]
  found = report["parts"]["linear"]
  assert found["changed"]["batch_size"] == [1024, 64]
  assert not {"num_workers", "data_dir"} & found["changed"].keys()
  assert found["result"]["updates"] == 6
  assert [split["examples"] for split in found["result"]["splits"]] == [
    *(1294, 143, 360)
  ]
  (one,) = (t["rows"][0] for t in report["tables"] if t["number"] == "1")
  assert one["ours"] == pytest.approx(
    100 * found["result"]["rows"][0]["top1"], abs=0.01
  )
  assert one["data"] == "digits"
  assert "| top-1 | " in (tmp_path / suite.TEXT).read_text()

  # What was refused may be asked for otherwise; what was done may not.
  of_knn = [flag for flag in FLAGS if "linear" not in flag]
  other = parts_of(":knn", *of_knn, "--config.knn.temperature=0.1")
  report = evaluate(tmp_path, opened, other, Out())
  why = report["parts"]["knn"]["why_not"]
  assert "holds another evaluation (config.temperature: 0.07 there, 0." in why
  assert report["parts"]["knn"]["result"]["config"]["temperature"] == 0.07
  changed = {"digest": "another", **opened.provenance}
  with pytest.raises(UsageError, match=r"holds another evaluation \(encoder"):
    place.claim(
      str(tmp_path),
      {"config": {"suite": "paper"}, "encoder": changed},
      Processes(),
    )


def test_the_parts_are_what_their_protocols_make():
  parts = parts_of("")
  assert len(parts) == 36
  for name, config in (
    ("linear_released", linear.get_config("released=1")),
    ("semi_supervised_100", semi_supervised.get_config("share=1")),
    ("finetune_pets", finetune.get_config("pets")),
  ):
    assert parts[name].to_dict() == config.to_dict()
  at = paths.of_data_set(detection.get_config().data_name)
  assert parts["detection"].data_name == at
  fine_tuned = {name for name in parts if name.startswith("finetune_")}
  assert parts_of(":finetune").keys() == fine_tuned
  # Random weights are fine-tuned for longer, by other grids.
  from_random = parts_of("", encoder="random:configs/byol.py")
  differing = {n for n in parts if parts[n] != from_random[n]}
  assert differing == fine_tuned
  given = finetune.get_config("pets,random=1")
  assert from_random["finetune_pets"].to_dict() == given.to_dict()
  assert parts_of(":linear").keys() == {"linear"}
  given = parts_of(
    ":knn,linear",
    "--config.data_dir=/all",
    "--config.knn.data_dir=/own",
    "--config.deadlines.stall_seconds=7",
  )
  assert (given["knn"].data_dir, given["linear"].data_dir) == ("/own", "/all")
  assert given["knn"].deadlines.stall_seconds == 7


def test_mistakes_are_told():
  for flags, told in (
    ((":knm",), r"no part 'knm'.*Did you mean 'knn'"),
    (("", "--config.knn.temperature=0"), r"^knn.temperature is 0.0; expected"),
    ((":knn", "--config.linear.epochs=1"), r"linear.; parts asked for: knn$"),
  ):
    with pytest.raises(UsageError, match=told):
      parts_of(*flags)
  with pytest.raises(UsageError, match="--suite is 'papr'; expected one of pa"):
    config_file.of_suite("papr:knn", None)
