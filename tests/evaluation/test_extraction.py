"""Features of whole splits in one file, in one go or with interruptions."""

import dataclasses
import io
import pathlib

import numpy as np
import pytest
from pyarrow import parquet

from byol_flax.evaluation import (
  encoder,
  extraction,
  feature_files,
  feature_parts,
  features,
  held_out,
)
from byol_flax.runs.distributed import Processes
from configs import knn
from input_pipeline import sources
from input_pipeline.errors import PreemptedError, RunError, UsageError
from tests.evaluation import settings
from tests.input_pipeline.prepare.test_prepare import jpeg, write
from tests.runs.test_older_records import unpack

# In one process of xdist, which opens the encoder once.
pytestmark = pytest.mark.xdist_group("extraction")

DEVICES = 2
FILES = {
  "a/1.jpg": jpeg(1),
  "a/2.jpg": jpeg(2),
  "b/3.jpg": b"damaged",
  "b/4.jpg": jpeg(4),
  "5.jpg": jpeg(5),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  unpack("format1_digits.tar.xz", folder)
  return encoder.open_encoder(str(folder / "digits"), settings.mesh_of(DEVICES))


class Struck(Processes):
  """Processes to which something happens before a batch."""

  def __init__(self, batch, error):
    super().__init__()
    self.left, self.error = batch, error

  def part_done(self):
    if not self.left:
      raise self.error
    self.left -= 1


class KilledError(BaseException):
  """Nothing of ours catches it."""


def setting_of(opened, processes=None, **changes):
  """With the lines that were told."""
  config = knn.get_config()
  lines = []
  made = settings.setting(config, "", devices=DEVICES, opened=opened, **changes)
  made = dataclasses.replace(
    made,
    tell=lines.append,
    console=io.StringIO(),
    processes=processes or Processes(),
  )
  return made, lines


def run(opened, out, data="digits", split="test", processes=None, **changes):
  made, lines = setting_of(opened, processes, **{"batch_size": 50, **changes})
  extraction.run(made, held_out.open_split(data, split, None), str(out))
  return lines


def arrays(path):
  with np.load(path, allow_pickle=False) as found:
    return dict(found)


@pytest.mark.slow
def test_they_are_those_of_the_evaluations(opened, tmp_path):
  made, _ = setting_of(opened, batch_size=50)
  split = sources.open_source("digits", "test")
  (expected,) = features.extract_splits(
    features.make_feature_fn(opened, made.mesh),
    opened.variables,
    [split],
    made.make_reader(),
    mesh=made.mesh,
  )
  out = tmp_path / "a.npz"
  lines = run(opened, out)
  assert lines[-1] == f"Written to {out}: 360 rows of 16 features"
  found = arrays(out)
  for name in ("representation", "label"):
    np.testing.assert_array_equal(found[name], expected[name])
  assert found["id"].tolist() == [f"test/{i}" for i in range(360)]
  about = feature_files.metadata_of(str(out))
  assert about["encoder"] == opened.provenance
  assert about["crop"] == {"size": 9, "ratio": 1.0}
  assert about["class_names"] == list("0123456789")
  assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_a_folder_with_and_without_classes(opened, tmp_path):
  """In the order of the paths; what cannot be read is left out, and told."""
  folder = write(tmp_path / "images", FILES)
  out = tmp_path / "a.parquet"
  ids = ["5.jpg", "a/1.jpg", "a/2.jpg", "b/4.jpg"]
  lines = run(opened, out, f"folder:{folder}", "all", batch_size=2)
  assert lines[-2] == (
    f"1 image(s) could not be read and are left out: {folder}/b/3.jpg"
  )
  labelled = parquet.read_table(out)
  assert labelled["id"].to_pylist() == ids
  assert labelled["label"].to_pylist() == [None, 0, 0, 1]
  assert labelled["class"].to_pylist() == [None, "a", "a", "b"]
  assert feature_files.metadata_of(str(out))["unreadable_images"] == 1
  run(opened, tmp_path / "b.npz", f"unlabelled:{folder}", "all", batch_size=2)
  flat = arrays(tmp_path / "b.npz")
  assert flat["id"].tolist() == ids
  assert flat["label"].tolist() == [-1] * 4
  np.testing.assert_array_equal(
    flat["representation"], np.stack(labelled["representation"].to_numpy())
  )
  # An image of another size is the same crop as by the Python API.
  source = sources.open_source(f"folder:{folder}", "all")
  image = sources.read_example(source, 0)["image"]
  np.testing.assert_allclose(
    opened(opened.preprocess([image])),
    flat["representation"][:1],
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_interrupted_ones_are_the_same_file(
  opened, tmp_path, monkeypatch, ending
):
  monkeypatch.setattr(feature_parts, "_MOST_ROWS", 100)
  whole, cut_off = (tmp_path / f"{name}{ending}" for name in ("a", "b"))
  run(opened, whole)
  parts = pathlib.Path(f"{cut_off}.parts")

  def kept():
    return [int(path.stem[-12:]) for path in sorted(parts.glob("rows-*"))]

  # Two batches are read ahead. A kill loses what was computed after a part.
  with pytest.raises(KilledError):
    run(opened, cut_off, processes=Struck(5, KilledError()))
  assert kept() == [100]
  # A preemption loses nothing.
  with pytest.raises(PreemptedError):
    run(opened, cut_off, processes=Struck(3, PreemptedError()))
  assert kept() == [100, 150]
  assert not cut_off.exists()
  lines = run(opened, cut_off)
  assert lines[0] == "going on after image 150 of 360"
  assert cut_off.read_bytes() == whole.read_bytes()
  assert not parts.exists()
  assert run(opened, cut_off) == [
    f"{cut_off} holds these features already; nothing to do."
  ]
  assert not parts.exists()


@pytest.mark.slow
def test_a_part_holds_no_more_than_it_may(opened, tmp_path, monkeypatch):
  monkeypatch.setattr(feature_parts, "_MOST_ROWS", 100)
  out = tmp_path / "a.npz"
  with pytest.raises(KilledError):
    run(opened, out, split="train", processes=Struck(28, KilledError()))
  parts = sorted(pathlib.Path(f"{out}.parts").glob("rows-*"))
  assert [len(arrays(part)["representation"]) for part in parts] == [100] * 13
  # One that was lost is computed again, and so is what follows.
  parts[3].unlink()
  assert run(opened, out, split="train")[0] == (
    "going on after image 300 of 1,437"
  )
  assert arrays(out)["id"][-1] == "train/1436"


@pytest.mark.slow
def test_others_are_refused_by_name(opened, tmp_path, monkeypatch):
  monkeypatch.setattr(feature_parts, "_MOST_ROWS", 50)
  out = tmp_path / "a.npz"
  with pytest.raises(KilledError):
    run(opened, out, processes=Struck(6, KilledError()))
  before = sorted(pathlib.Path(f"{out}.parts").iterdir())
  other = dataclasses.replace(
    opened, provenance={**opened.provenance, "digest": "else"}
  )
  with pytest.raises(UsageError, match=r"other features \(encoder\.digest: "):
    run(other, out)
  with pytest.raises(UsageError, match=r"data\.split: test there, train now"):
    run(opened, out, split="train")
  with pytest.raises(UsageError, match="batch_size: 50 there, 20 now"):
    run(opened, out, batch_size=20)
  assert sorted(pathlib.Path(f"{out}.parts").iterdir()) == before
  run(opened, out)
  # The file is ours, so that other features may take its place.
  run(other, out)
  assert feature_files.metadata_of(str(out))["encoder"]["digest"] == "else"


def test_parts_of_which_nobody_knows_the_encoder_are_computed_again(
  opened, tmp_path, monkeypatch
):
  monkeypatch.setattr(feature_parts, "_MOST_ROWS", 50)
  out = tmp_path / "a.npz"
  with pytest.raises(KilledError):
    run(opened, out, processes=Struck(6, KilledError()))
  (pathlib.Path(f"{out}.parts") / "features.json").unlink()
  assert not any("going on" in line for line in run(opened, out))


def test_the_name_of_the_encoder_outlives_the_parts(tmp_path):
  """As when a kill comes while they are removed."""
  folder = tmp_path / "a.npz.parts"
  with feature_parts.opened(str(folder), 8, {"a": 1}) as parts:
    # A part that cannot be unlinked.
    write(folder, {"rows-000000000000-000000000008.npz/a": b""})
    with pytest.raises(OSError, match="rows-"):
      parts.remove()
  assert (folder / "features.json").exists()


def test_a_folder_of_parts_that_is_in_use_or_not_ours_is_refused(
  opened, tmp_path
):
  out = tmp_path / "a.npz"
  with (
    feature_parts.opened(f"{out}.parts", 8, {}),
    pytest.raises(UsageError, match=r"Another command \(process .* is writing"),
  ):
    run(opened, out)
  write(f"{out}.parts", {"notes.txt": b""})
  with pytest.raises(UsageError, match=r"it holds notes\.txt, which is none"):
    run(opened, out)
  assert pathlib.Path(f"{out}.parts", "notes.txt").exists()


@pytest.mark.slow
def test_a_damaged_part_is_told(opened, tmp_path, monkeypatch):
  monkeypatch.setattr(feature_parts, "_MOST_ROWS", 50)
  out = tmp_path / "a.npz"
  with pytest.raises(KilledError):
    run(opened, out, processes=Struck(6, KilledError()))
  part = next(pathlib.Path(f"{out}.parts").glob("rows-000000000050-*"))
  part.write_bytes(part.read_bytes()[:-40])
  with pytest.raises(RunError, match=rf"{part.name} is damaged\. Remove it"):
    run(opened, out)
  part.unlink()
  assert run(opened, out)[0] == "going on after image 50 of 360"


def test_features_that_are_not_finite_are_told(tmp_path):
  batch = {
    "representation": np.float32([[1, 2], [3, np.inf]]),
    "label": np.int32([0, 1]),
    "mask": np.array([True, False]),
  }
  with feature_parts.opened(str(tmp_path / "parts"), 8, {}) as parts:
    parts.add(batch, 2)  # the row does not count
    with pytest.raises(RunError, match="not finite"):
      parts.add({**batch, "mask": np.array([True, True])}, 2)


def test_a_folder_of_damaged_images_leaves_no_file(opened, tmp_path):
  folder = write(tmp_path / "images", {"1.jpg": b"damaged"})
  out = tmp_path / "a.npz"
  with pytest.raises(
    UsageError, match=r"None of the 1 images of folder:.*1\.j"
  ):
    run(opened, out, f"folder:{folder}", "all", batch_size=2)
  assert list(tmp_path.iterdir()) == [tmp_path / "images"]
