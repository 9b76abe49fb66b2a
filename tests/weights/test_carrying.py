"""Weights go out and come in again by the commands' own functions."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from byol_flax.commands import export_weights, import_weights
from byol_flax.commands.command_line import parse_command
from byol_flax.weights import (
  arrays,
  artifact,
  exporting,
  importing,
  new_folder,
  npz,
  opening,
  proof,
  safetensors_files,
)
from byol_flax.weights.errors import WeightsError
from input_pipeline.errors import UsageError
from tests.weights import made


@pytest.fixture(scope="module")
def whole():
  return made.weights()


def export(found, out, form, *, state=False):
  lines = []
  exporting.run(
    found, str(out), form=form, whole=state, about={}, tell=lines.append
  )
  return lines


def assert_same(found, expected):
  proof.check_equal(npz.leaves(found), npz.leaves(expected))


@pytest.mark.parametrize("form", ["npz", "safetensors"])
@pytest.mark.parametrize("state", [False, True])
def test_what_was_exported_is_read_again(whole, tmp_path, form, state):
  out = tmp_path / "out"
  lines = export(whole, out, form, state=state)
  expected = whole if state else exporting.encoder_alone(whole)
  count = len(npz.leaves(expected))
  assert f"arrays: {count} were read back, the same to the last bit" in lines
  found = opening.open_weights(opening.file_of(str(out)))
  assert_same(found, expected)
  assert (found.step, found.image_size) == (whole.step, whole.image_size)
  assert json.loads((out / "export.json").read_text())["holds"] == (
    "state" if state else "encoder"
  )


@pytest.mark.slow
def test_an_export_is_imported(whole, tmp_path):
  export(whole, tmp_path / "out", "safetensors", state=True)
  lines = []
  importing.run(str(tmp_path / "out"), str(tmp_path / "in"), lines.append)
  found = opening.open_weights(opening.file_of(str(tmp_path / "in")))
  assert_same(found, whole)
  source = found.details["imported_from"]
  file = tmp_path / "out" / "model.safetensors"
  assert source["sha256"] == opening.sha256(str(file))
  assert f"SHA-256 {source['sha256']}" in lines[0]
  assert "basic:1-1:8-12:4, width 1, small stem, same padding" in lines[1]
  assert "online network (classifier, encoder, predictor" in lines[3]
  assert "none missing, none left over" in lines[4]


def test_the_program_of_jax_gives_the_features(whole, tmp_path):
  lines = export(whole, tmp_path / "out", "jax")
  assert any("through jax.export" in line for line in lines)
  path = tmp_path / "out" / artifact.FILE
  program = jax.export.deserialize(bytearray(path.read_bytes()))
  images = proof.fixed_images(16)
  np.testing.assert_allclose(
    program.call(images[:3]),
    proof.our_features(exporting.encoder_alone(whole), images)[:3],
    rtol=1e-5,
    atol=1e-6,
  )


def test_what_fails_its_proof_leaves_nothing(whole, tmp_path, monkeypatch):
  monkeypatch.setattr(proof, "LIMIT", 1e-30)
  with pytest.raises(WeightsError, match="Nothing was written"):
    export(whole, tmp_path / "out", "jax")
  assert os.listdir(tmp_path) == []


def test_an_older_export_stays_until_the_new_one_is_proven(whole, tmp_path):
  out = tmp_path / "out"
  export(whole, out, "npz")
  before = (out / npz.FILE).read_bytes()
  leaves = npz.leaves(whole)
  name = "online/params/encoder/stem_conv/kernel"
  broken = arrays.Stored.of(np.full_like(leaves[name].load(), np.nan))
  online = arrays.nested(leaves | {name: broken})["online"]
  other = dataclasses.replace(whole, networks={"online": online})
  with pytest.raises(WeightsError, match="not finite"):
    export(other, out, "npz")
  assert (out / npz.FILE).read_bytes() == before
  assert os.listdir(tmp_path) == ["out"]


def options_of(*argv):
  return parse_command(argv)[0]


def test_a_folder_of_somebody_else_is_left_alone(whole, tmp_path):
  (tmp_path / "holiday.png").write_text("mine")
  with pytest.raises(UsageError, match="is no export of byol"):
    export(whole, tmp_path, "npz")
  npz.write(str(tmp_path / "w.npz"), whole)
  options = options_of("import", f"{tmp_path}/w.npz", f"--out={tmp_path}")
  with pytest.raises(UsageError, match="is no export of byol"):
    import_weights.run(options)
  assert (tmp_path / "holiday.png").read_text() == "mine"


def test_an_export_with_something_added_is_left_alone(whole, tmp_path):
  out = tmp_path / "out"
  export(whole, out, "npz")
  export(whole, out, "safetensors")  # one without anything added is not
  assert "weights.npz" not in os.listdir(out)
  (out / "notes.md").write_text("mine")
  with pytest.raises(UsageError, match="which no export wrote"):
    export(whole, out, "npz")
  assert (out / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("given", ["", "."])
def test_the_current_folder_is_left_alone(given, whole, tmp_path, monkeypatch):
  export(whole, tmp_path / "out", "npz")
  monkeypatch.chdir(tmp_path / "out")
  before = os.listdir()
  with pytest.raises(UsageError, match=r"--out is empty|runs in that folder"):
    export(whole, given, "safetensors")
  assert os.listdir() == before


def test_weights_are_not_replaced_by_what_is_made_of_them(whole, tmp_path):
  export(whole, tmp_path / "out", "npz", state=True)
  os.symlink(tmp_path / "out", tmp_path / "link")
  for verb, where, more in (
    (import_weights, ["import", f"{tmp_path}/out"], []),
    (export_weights, ["export", f"--encoder={tmp_path}/out"], ["--format=npz"]),
  ):
    options = options_of(*where, *more, f"--out={tmp_path}/link")
    with pytest.raises(UsageError, match="weights are read from there"):
      verb.run(options)
  found = opening.open_weights(opening.file_of(str(tmp_path / "out")))
  assert_same(found, whole)


def test_a_bucket_is_refused(whole):
  with pytest.raises(UsageError, match="folders of this machine"):
    export(whole, "gs://bucket/out", "npz")


def test_an_export_through_a_link_keeps_the_link(whole, tmp_path):
  export(whole, tmp_path / "out", "npz")
  os.symlink("out", tmp_path / "link")
  export(whole, tmp_path / "link", "safetensors")
  assert sorted(os.listdir(tmp_path)) == ["link", "out"]
  assert os.readlink(tmp_path / "link") == "out"
  assert "model.safetensors" in os.listdir(tmp_path / "out")


def test_what_a_killed_export_left_is_tidied_up(whole, tmp_path):
  out = tmp_path / "out"
  export(whole, out, "npz")
  expected = sorted(os.listdir(out))
  # As after a kill between the two renames.
  os.rename(out, f"{out}.byol-old")
  os.mkdir(f"{out}.byol-new")
  (tmp_path / "out.byol-new" / "weights.npz").write_text("half")
  with pytest.raises(KeyboardInterrupt), new_folder.written(str(out), {}):
    raise KeyboardInterrupt
  assert os.listdir(tmp_path) == ["out"]
  assert sorted(os.listdir(out)) == expected


def test_two_exports_to_one_place_do_not_meet(tmp_path):
  out = str(tmp_path / "out")
  refused = pytest.raises(UsageError, match=r"another command \(process")
  with new_folder.written(out, {}), refused, new_folder.written(out, {}):
    pass
  assert os.listdir(tmp_path) == ["out"]
  assert os.listdir(out) == [new_folder.MARK]


TORCH_LIKE = made.model_with(
  architecture="basic:1-1:8-12:8", shortcut="identity", padding="symmetric"
)


def test_hugging_face_gets_the_classifier_that_is_asked_for(tmp_path):
  found = made.weights(TORCH_LIKE)
  exporting.run(
    found,
    str(tmp_path / "out"),
    form="huggingface",
    whole=False,
    about={},
    tell=print,
    classifier=True,
  )
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert config["architectures"] == ["ResNetForImageClassification"]
  named, _ = safetensors_files.read(str(tmp_path / "out/model.safetensors"))
  kernel, bias = exporting.classifier_of(found)
  assert kernel.shape == (12, 3)
  np.testing.assert_array_equal(named["classifier.1.weight"].load(), kernel.T)
  np.testing.assert_array_equal(named["classifier.1.bias"].load(), bias)
  with pytest.raises(WeightsError, match="no classifier beside the encoder"):
    exporting.classifier_of(exporting.encoder_alone(found))


def test_a_place_that_takes_no_files_is_told_before_any_work(tmp_path):
  (tmp_path / "file").write_text("mine")
  options = options_of("import", "x", f"--out={tmp_path}/file/a/b")
  with pytest.raises(UsageError, match=r"file takes no files"):
    new_folder.check(options.out)


REFUSED = {
  "no encoder": (["export", "--format=npz", "--out=x"], "needs --encoder"),
  "an untrained one": (
    ["export", "--encoder=random:configs/byol.py", "--format=npz", "--out=x"],
    "never trained has nothing to give",
  ),
  "a state for jax": (
    ["export", "--encoder=/nowhere", "--format=jax", "--state", "--out=x"],
    "--state goes with --format=safetensors and --format=npz",
  ),
  "a classifier for jax": (
    ["export", "--encoder=/a", "--format=jax", "--classifier", "--out=x"],
    "it goes with --format=huggingface",
  ),
  "no run": (
    ["export", "--encoder=/nowhere", "--format=npz", "--out=x"],
    "there is no checkpoint in /nowhere",
  ),
  "no file": (["import", "/nowhere", "--out=x"], "no weight file /nowhere"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_mistakes_are_told(kind, tmp_path, monkeypatch):
  argv, said = REFUSED[kind]
  monkeypatch.chdir(tmp_path)
  verb = import_weights if argv[0] == "import" else export_weights
  with pytest.raises(UsageError, match=said):
    verb.run(options_of(*argv))
  assert os.listdir(tmp_path) == []
