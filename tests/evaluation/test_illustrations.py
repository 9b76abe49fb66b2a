"""An evaluation leaves its pictures, and no picture costs a result."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from byol_flax.evaluation import (
  illustrations,
  kept_pictures,
  knn_shown,
  protocols,
  scores,
)
from byol_flax.reports import projector
from byol_flax.runs.distributed import Processes
from configs import knn as knn_config
from input_pipeline import sources
from tests.evaluation import settings
from tests.reports import test_suite
from tests.runs.test_metrics_log import events_of

RANDOM = np.random.default_rng(9)


@pytest.fixture(scope="module")
def of_knn(tmp_path_factory):
  """Folder of nearest neighbours of digits, how they are cropped, the lines."""
  folder = tmp_path_factory.mktemp("knn")
  mesh = settings.mesh_of(2)
  out = io.StringIO()
  session = protocols.Session(
    encoder=settings.untrained(mesh),
    mesh=mesh,
    processes=Processes(),
    out=out,
    console=io.StringIO(),
  )
  config = knn_config.get_config()
  config.update(num_workers=0, batch_size=50, neighbours=(1, 20))
  protocols.evaluate(session, config, str(folder), again=True)
  return folder, session.encoder.crop, out.getvalue()


@pytest.mark.slow
def test_what_the_pictures_show_is_what_was_found(of_knn):
  folder, crop, told = of_knn
  result = json.loads((folder / "result.json").read_text())
  assert sorted(path.stem for path in folder.glob("*.png")) == [
    *("confusion", "neighbours", "projection")
  ]
  assert "left out" not in told
  kept = np.load(folder / "guesses.npz")
  true, guess = kept["true"], kept["guess"]
  assert len(true) == 360
  best = max(max(by_k.values()) for by_k in result["top1"].values())
  assert np.mean(true == guess) == pytest.approx(best)
  worst = result["confusions"][0]
  assert worst["images"] == np.sum(
    (true == int(worst["true"])) & (guess == int(worst["guess"]))
  )

  sheet = np.load(folder / "neighbours.npz")
  assert sheet["images"].shape == (12, 6, crop.size, crop.size, 3)
  assert (np.diff(sheet["similarity"]) <= 0).all()
  split = sources.open_source("digits", "test")
  examples = (crop.map(split[i]) for i in range(len(split)))
  images = {x["image"].tobytes(): x["label"] for x in examples}
  for row, label in zip(sheet["images"], sheet["label"], strict=True):
    assert images[row[0].tobytes()] == label[0]

  features, about = projector.read(folder / "tensorboard")
  assert features.shape[0] == 360
  assert about["class"] == [str(k) for k in true]  # the whole split, in order
  assert about["guess"] == [str(k) for k in guess]
  assert about["image"][7] == split.example_name(7)
  shown = events_of(folder)
  for name in ("confusion", "neighbours", "projection"):
    ((_, png),) = [(step, stored[2]) for step, stored in shown[name]]
    np.testing.assert_array_equal(
      np.array(Image.open(io.BytesIO(png))),
      np.array(Image.open(folder / f"{name}.png")),
    )


@pytest.mark.slow
def test_a_missing_picture_is_drawn_again_and_a_failing_one_is_told(of_knn):
  folder, _, _ = of_knn
  before = (folder / "confusion.png").read_bytes()
  (folder / "neighbours.png").rename(folder / "old.png")
  guesses = (folder / "guesses.npz").read_bytes()
  (folder / "guesses.npz").write_bytes(guesses[:50])
  lines = []
  illustrations.draw(str(folder), lines.append)
  assert len(lines) == 2
  assert lines[0].startswith("confusion.png is left out: ")
  assert lines[1] == f"Drawn: {folder}/neighbours.png"
  old = folder / "old.png"
  assert (folder / "neighbours.png").read_bytes() == old.read_bytes()
  assert (folder / "confusion.png").read_bytes() == before
  illustrations.draw(str(folder), lines.append)
  assert len(lines) == 2  # all are there


def test_results_of_older_versions_are_drawn_as_far_as_they_go(tmp_path):
  result = test_suite.result(
    "transfer",
    config={"metric": "top1"},
    path=[{"penalty": 10.0**k, "valid": 0.5} for k in range(4)],
    penalty=10.0,
    top1=0.4,
  )
  (tmp_path / "result.json").write_text(json.dumps(result))
  lines = []
  illustrations.draw(str(tmp_path), lines.append)
  assert lines[0].startswith("No confusion matrix is drawn: an older version")
  assert lines[1:] == [f"Drawn: {tmp_path}/penalties.png"]


def test_probes_on_few_labels_have_one_curve_each(tmp_path):
  table = [
    {"representation": name, "linear": {"1": [low, 0.1], "10": [0.9, 0.0]}}
    for name, low in (("raw_pixels", 0.3), ("byol", 0.6))
  ]
  result = test_suite.result(
    *("few_label", "digits", {"few_label": {"draws": 5}}), table=table
  )
  assert illustrations.curves_of_probes(result) == {
    "raw_pixels": [(1, 0.3), (10, 0.9)],
    "byol": [(1, 0.6), (10, 0.9)],
  }
  # With fewer labels than any probe needs there is nothing to draw.
  none = {**result, "table": [{**row, "linear": {}} for row in table]}
  told = []
  for found in (none, result):
    (tmp_path / "result.json").write_text(json.dumps(found))
    told.append([])
    illustrations.draw(str(tmp_path), told[-1].append)
  assert told == [[], [f"Drawn: {tmp_path}/label-efficiency.png"]]


def test_a_file_says_that_tensorboard_has_its_picture(tmp_path):
  """So a kill between the two loses none: what has no file is drawn again."""
  (tmp_path / kept_pictures.TENSORBOARD).touch()  # no folder can be made there
  result = test_suite.result(
    *("few_label", "digits", {"few_label": {"draws": 5}}),
    table=[{"representation": "byol", "linear": {"1": [0.3, 0.1]}}],
  )
  (tmp_path / "result.json").write_text(json.dumps(result))
  lines = []
  illustrations.draw(str(tmp_path), lines.append)
  assert len(lines) == 2
  assert lines[0].startswith("TensorBoard's copy of the pictures is left out")
  assert lines[1] == f"Drawn: {tmp_path}/label-efficiency.png"


def test_a_suite_has_one_curve_and_links_what_is_there(tmp_path):
  results = {}
  for part, examples in (("semi_1", 100), ("semi_10", 1000), ("knn", 0)):
    row = {"examples": examples, "top1": 0.5}
    protocol = "semi_supervised" if examples else part
    results[part] = test_suite.result(protocol, "digits", rows=[row])
  (tmp_path / "knn").mkdir()
  (tmp_path / "knn" / "confusion.png").write_bytes(b"")
  lines = []
  illustrations.draw_of_suite(str(tmp_path), results, lines.append)
  assert lines == []
  with Image.open(tmp_path / "label-efficiency.png") as picture:
    assert picture.size == (800, 500)
  assert illustrations.links(str(tmp_path), results).splitlines()[3:] == [
    "- [label-efficiency](label-efficiency.png)",
    "- [knn/confusion](knn/confusion.png)",
  ]
  assert illustrations.links(str(tmp_path / "none"), []) == ""


@pytest.mark.slow
def test_dense_predictions_are_drawn_from_what_was_kept(tmp_path):
  (tmp_path / "evaluation.json").write_text("{}")
  folder, names = str(tmp_path), ["a", "b"]
  image = RANDOM.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
  box = np.array([[[2, 3, 9, 12.0]]] * 2)
  one = np.ones((2, 1), int)
  mask = RANDOM.choice([0, 1, 255], (2, 24, 32)).astype(np.uint8)
  depth = RANDOM.uniform(0, 9, (2, 24, 32))
  size = np.array([[24, 30]] * 2)
  kept_pictures.keep_boxes(
    *(folder, image, size, box, one, one > 1, box + 1, 0.9 * one, one, names)
  )
  kept_pictures.keep_classes(
    folder, image, mask, mask, names, np.array([[5, 1], [0, 2]])
  )
  kept_pictures.keep_depths(folder, image, depth, depth + 1)
  curve = np.array([0.5, 1.0])
  kept_pictures.keep_curves(folder, {"a": (curve, 1 - curve, 0.4)})
  result = test_suite.result("segmentation")
  (tmp_path / "result.json").write_text(json.dumps(result))
  lines = []
  illustrations.draw(folder, lines.append)
  found = ("boxes", "masks", "depths", "precision-recall", "confusion")
  assert lines == [f"Drawn: {folder}/{name}.png" for name in found]
  shown = events_of(tmp_path)
  for name in found:
    ((_, png),) = [(step, stored[2]) for step, stored in shown[name]]
    np.testing.assert_array_equal(
      np.array(Image.open(io.BytesIO(png))),
      np.array(Image.open(tmp_path / f"{name}.png")),
    )


def test_nothing_is_kept_in_the_folder_of_a_run(tmp_path):
  true = np.array([0, 1, -1, 1])
  for claimed in (False, True):
    if claimed:
      (tmp_path / "evaluation.json").write_text("{}")
    found = kept_pictures.keep_guesses(
      str(tmp_path), "row", true, np.array([1, 1, 0, 1]), ["a", "b"]
    )
    assert [x["guess"] for x in found] == ["b"]
    assert (tmp_path / "guesses-row.npz").exists() == claimed


def test_the_paper_has_points_for_its_own_encoders_on_imagenet():
  result = test_suite.result("semi_supervised")
  found = illustrations.points_of_paper(result)
  assert [y for _, y in found] == pytest.approx([0.532, 0.688, 0.777])
  assert [x for x, _ in found] == pytest.approx([12711.58, 127115.8, 1271158])
  other = test_suite.result("semi_supervised", "digits")
  assert illustrations.points_of_paper(other) == []


def test_guesses_are_right_exactly_where_hits_are():
  found = RANDOM.integers(0, 3, (200, 4)).astype(float)  # full of ties
  found[:5, 2] = np.nan
  labels = RANDOM.integers(0, 4, 200)
  guesses = scores.guesses(found, labels)
  hits = scores.hits(found, labels)
  np.testing.assert_array_equal(guesses == labels, hits)
  for row, guess in zip(
    found[5:][~hits[5:]], guesses[5:][~hits[5:]], strict=True
  ):
    assert row[guess] == row.max()


def test_a_sample_is_bounded_and_leaves_out_what_has_no_label(monkeypatch):
  monkeypatch.setattr(knn_shown, "_MOST_POINTS", 6)
  mesh = settings.mesh_of(2)
  sample = knn_shown.Sample(20, mesh)
  features = np.arange(40, dtype=np.float32).reshape(20, 2)
  labels = np.where(np.arange(24) % 3, 1, -1)
  for start in (0, 8, 16):
    part = np.zeros((8, 2), np.float32)
    part[: len(features[start : start + 8])] = features[start : start + 8]
    of_part = labels[start : start + 8].copy()
    of_part[len(features[start : start + 8]) :] = -1
    sample.add(part, of_part)
  assert 0 < len(sample.numbers) <= 6
  assert (sample.numbers % 3 > 0).all()
  np.testing.assert_array_equal(sample.features, features[sample.numbers])
