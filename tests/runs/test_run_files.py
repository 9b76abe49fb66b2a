"""What a run may write over or move, and what it must leave alone."""

import json

import numpy as np
import pytest
from PIL import Image

from byol_flax.reports import png
from byol_flax.runs import distributed, out_files, run_files, workdir
from input_pipeline.errors import UsageError
from tests.runs.test_older_records import unpack

ALONE = distributed.Processes()
NAMES = (
  "config.json",
  "metrics.jsonl",
  "starts.jsonl",
  "parameters.txt",
  "views.png",
  "curves.png",
  "summary.json",
  "rolled-back.json",
  "unreadable-3.txt",
  "view_hashes-12.jsonl",
)
FOLDERS = (
  "checkpoints",
  "checkpoints-damaged",
  "checkpoints-rolled-back",
  "tensorboard",
)
NOT_OURS = (
  "holiday.png",
  "notes.jsonl",
  "metrics.jsonl.bak",
  "unreadable-x.txt",
  "checkpoints-of-mine",
  "my-views.png",
)


def fill(folder, names):
  folder.mkdir(exist_ok=True)
  for name in names:
    (folder / name).write_text(f"content of {name}")


def content(folder):
  return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("name", [*NAMES, *FOLDERS, "run.lock"])
def test_a_folder_of_somebody_else_is_refused_by_name(tmp_path, name):
  where = tmp_path / name
  if name in FOLDERS:
    where.mkdir()
    where /= "within"
  where.write_text("precious")
  with (
    pytest.raises(UsageError, match=rf"no run .* holds {name}, which"),
    workdir.taken(str(tmp_path), ALONE),
  ):
    pass
  assert where.read_text() == "precious"
  assert [path.name for path in tmp_path.iterdir()] == [name]


def test_all_that_stands_in_the_way_is_named(tmp_path):
  fill(tmp_path, NAMES)
  with pytest.raises(UsageError, match=r"config\.json, .*, \.\.\., which"):
    run_files.check_ours(str(tmp_path))


def test_a_folder_with_other_files_becomes_a_run_and_stays_one(tmp_path):
  fill(tmp_path, NOT_OURS)
  (tmp_path / "checkpoints").mkdir()  # empty: nothing would be lost
  for _ in range(2):
    with workdir.taken(str(tmp_path), ALONE):
      fill(tmp_path, NAMES)
  assert json.loads((tmp_path / "byol-run.json").read_text())["format"] == 2


@pytest.mark.parametrize("evidence", ["starts.jsonl", "checkpoints"])
def test_a_run_of_an_older_version_is_one_of_ours(tmp_path, evidence):
  unpack("format1_digits.tar.xz", tmp_path)
  folder = tmp_path / "digits"
  other = {"starts.jsonl", "checkpoints"} - {evidence}
  (folder / other.pop()).rename(tmp_path / "elsewhere")
  with workdir.taken(str(folder), ALONE):
    pass
  assert (folder / "byol-run.json").exists()


def test_set_aside_moves_what_runs_write_and_nothing_else(tmp_path):
  run_files.set_aside(str(tmp_path), ALONE)
  assert not list(tmp_path.iterdir())  # nothing there: nothing made
  fill(tmp_path, (*NAMES, *NOT_OURS, "run.lock", "byol-run.json"))
  for name in FOLDERS:
    (tmp_path / name).mkdir()
    (tmp_path / name / "x").write_text("kept")
  before = sorted(path.name for path in tmp_path.iterdir())
  run_files.set_aside(str(tmp_path), ALONE)
  (new,) = tmp_path.glob("replaced-*")
  moved = sorted(path.name for path in new.iterdir())
  assert moved == sorted((*NAMES, *FOLDERS))
  assert (new / "checkpoints" / "x").read_text() == "kept"
  stayed = {path.name for path in tmp_path.iterdir()} - {new.name}
  assert stayed == set(before) - set(moved)


def test_a_run_without_checkpoints_makes_way_for_a_new_one(tmp_path):
  fill(tmp_path, ["starts.jsonl", "config.json"])
  assert run_files.set_aside_unsaved(str(tmp_path), ALONE) == ()
  fill(tmp_path, ["metrics.jsonl", "holiday.png"])
  (tmp_path / "checkpoints").mkdir()
  before = (tmp_path / "metrics.jsonl").read_text()
  (note,) = run_files.set_aside_unsaved(str(tmp_path), ALONE)
  (new,) = tmp_path.glob("replaced-*")
  assert note.endswith(
    f"begins anew, and what an earlier start reported is in {new}"
  )
  assert (new / "metrics.jsonl").read_text() == before
  assert {path.name for path in tmp_path.iterdir()} == {
    new.name,
    "checkpoints",
    "holiday.png",
    "starts.jsonl",  # their time was spent all the same
  }


def test_out_is_written_over_only_if_byol_wrote_it(tmp_path):
  for text in ('{"mine": 1}', "[1]", "thesis", ""):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"result\.json: .*not written by"):
      out_files.check_writable(str(path))
  out_files.write_json(str(path), {"code_version": "x"})
  out_files.check_writable(str(path))

  picture = tmp_path / "views.png"
  pixels = np.zeros((4, 5, 3), np.uint8)
  Image.fromarray(pixels).save(picture)
  with pytest.raises(UsageError, match=r"views\.png: .*not written by"):
    png.check_ours(str(picture))
  png.save_png(str(picture), pixels)
  png.check_ours(str(picture))
  assert np.array_equal(np.asarray(Image.open(picture)), pixels)


def test_checkpoints_are_set_aside_newest_first(tmp_path):
  """So that what a kill leaves is a beginning of the run."""
  for name in ("3", "6", "12", "100", "12.tmp"):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / name / "state").write_text(name)
  run_files.set_aside_checkpoints(str(tmp_path), 3, ALONE)
  left = sorted(x.name for x in (tmp_path / "checkpoints").iterdir())
  assert left == ["12.tmp", "3"]
  moved = sorted(
    (tmp_path / "checkpoints-rolled-back").iterdir(),
    key=lambda folder: int(folder.name.split("-")[1]),
  )
  assert [x.name.split("-")[0] for x in moved] == ["100", "12", "6"]
  assert (moved[1] / "state").read_text() == "12"
