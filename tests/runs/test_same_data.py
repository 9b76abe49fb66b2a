"""A resumed run trains on the images that it began with, wherever they lie."""

import shutil
import types

import numpy as np
import pytest

from byol_flax.runs import same_data
from input_pipeline import sources
from input_pipeline.errors import UsageError
from input_pipeline.unreadable import UnreadableImages, began_with, lines_of
from tests.input_pipeline.test_folders import make_folder, write

NAMES = ("a/0.png", "a/1.png", "b/2.png", "b/3.png", "c/4.png")


class Run:
  """A folder of images, and a workdir whose run began with them."""

  def __init__(self, root, broken=()):
    self.images, self.workdir = root / "images", root / "run"
    self.workdir.mkdir()
    self.name = make_folder(self.images, NAMES)
    for file in broken:
      (self.images / file).write_bytes(b"\x89PNG")
    self.saved = {
      "config": {"data": {"name": self.name}},
      **same_data.describe(self.open(saved=None).source),
    }
    # What the run met.
    self.unreadable().see(np.array([NAMES.index(file) for file in broken]))

  def open(self, name=None, saved=...):
    config = types.SimpleNamespace(
      data=types.SimpleNamespace(name=name or self.name, split="all"),
      loader=types.SimpleNamespace(data_dir=None, stage_dir=None),
    )
    saved = self.saved if saved is ... else saved
    return same_data.open_images(config, saved, str(self.workdir))

  def unreadable(self, process=0, share=1.0):
    saved = getattr(self, "saved", None)
    opened = self.open(saved=saved)
    return UnreadableImages(
      sources.ReadableSource(opened.source),
      str(self.workdir / f"unreadable-{process}.txt"),
      share,
      opened.found_unreadable,
    )


def test_unreadable_images_may_be_mended_or_removed(tmp_path):
  run = Run(tmp_path, broken=["a/1.png", "c/4.png", "b/2.png"])
  listed = (run.workdir / "unreadable-0.txt").read_text()
  assert listed == "1\t4\ta/1.png\n2\t4\tb/2.png\n4\t4\tc/4.png\n"
  write(run.images / "a/1.png", seed=7)
  (run.images / "c/4.png").unlink()  # the last of its class
  (run.images / "c").rmdir()

  opened = run.open()
  assert same_data.describe(opened.source) == {
    key: value for key, value in run.saved.items() if key != "config"
  }
  source = sources.ReadableSource(opened.source)
  assert [int(source[i]["unreadable"]) for i in range(5)] == [-1, -1, 2, -1, 4]
  np.testing.assert_array_equal(source[4]["image"], source[0]["image"])
  found = run.unreadable(process=1)
  assert found.indices == {2, 4}
  mended, removed, left = found.changes
  assert left.startswith("2 image(s) could not be read; their names are in")
  assert mended.startswith("1 image(s) that could not be read can be read now")
  assert removed.startswith("1 image(s) that could not be read are gone")
  # Whoever comes next, and however often, with the sizes of the beginning.
  assert began_with(lines_of(str(run.workdir))) == {
    "a/1.png": 4,
    "b/2.png": 4,
    "c/4.png": 4,
  }
  write(run.images / "b/2.png", seed=8)
  assert run.unreadable(process=2).indices == {4}


def test_a_file_mended_to_its_size_is_seen_to_be_whole(tmp_path):
  run = Run(tmp_path)
  whole = (run.images / "b/2.png").read_bytes()
  (run.images / "b/2.png").write_bytes(bytes(len(whole)))
  run.unreadable().see(np.array([2]))
  assert run.unreadable().indices == {2}
  (run.images / "b/2.png").write_bytes(whole)
  assert run.unreadable(share=0).indices == set()


@pytest.mark.parametrize(
  ("change", "difference"),
  [
    (lambda root: (root / "b/3.png").unlink(), "5 images there, 4 now"),
    (lambda root: write(root / "a/new.png"), "5 images there, 6 now"),
    (lambda root: write(root / "d/new.png"), "3 classes there, 4 now"),
    (
      lambda root: (root / "b/3.png").write_bytes(b"x"),
      "as many, but their fingerprints differ",
    ),
    (lambda root: (root / "b").rename(root / "ab"), "classes of other names"),
  ],
)
def test_other_images_are_another_run(tmp_path, change, difference):
  run = Run(tmp_path, broken=["a/1.png"])
  (run.images / "a/1.png").unlink()
  run.open()
  if "other names" in difference:  # with which no unreadable one stays behind
    (run.workdir / "unreadable-0.txt").unlink()
    write(run.images / "a/1.png", seed=1)
    run.saved |= same_data.describe(run.open(saved=None).source)
  change(run.images)
  with pytest.raises(UsageError) as error:
    run.open()
  sentence = str(error.value)
  assert f"not those that the run in {run.workdir} began with" in sentence
  assert difference in sentence
  assert ("for the 1 that the run could not read" in sentence) == (
    "other names" not in difference
  )
  assert "--restart" in sentence


def test_images_may_move(tmp_path):
  run = Run(tmp_path, broken=["a/1.png"])
  assert run.open().moved == ()
  elsewhere = tmp_path / "elsewhere"
  shutil.move(run.images, elsewhere)
  write(elsewhere / "a/1.png")
  (moved,) = run.open(f"folder:{elsewhere}").moved
  assert moved.startswith(
    f"The images of folder:{elsewhere} are those of {run.name}, with which"
  )
  # Format 1 knows no names of classes.
  del run.saved["class_names_digest"]
  assert run.open(f"folder:{elsewhere}").moved == (moved,)
  other = make_folder(tmp_path / "other", NAMES[:3])
  with pytest.raises(UsageError, match=f"are not those of {run.name} that"):
    run.open(other)
  # The first records had no fingerprint either: then the name has to do.
  del run.saved["data_fingerprint"]
  with pytest.raises(UsageError, match="does not say which they were"):
    run.open(f"folder:{elsewhere}")


def test_lines_of_format_1_are_counted_and_completed(tmp_path):
  run = Run(tmp_path)
  whole = (run.images / "b/2.png").read_bytes()
  (run.images / "b/2.png").write_bytes(bytes(len(whole)))
  report = run.workdir / "unreadable-0.txt"
  report.write_text(f"2\t{run.images}/b/2.png\n99\tof another set\n")
  assert began_with(lines_of(str(run.workdir))) == {}
  assert run.unreadable().indices == {2}
  assert report.read_text().endswith(f"2\t{len(whole)}\tb/2.png\n")
  (run.images / "b/2.png").unlink()
  assert run.unreadable().indices == {2}


def test_names_that_no_text_holds_are_found_again(tmp_path):
  run = Run(tmp_path)
  odd = b"a/\xff\t.png".decode("utf-8", "surrogateescape")
  for file in (odd, "a/two\nlines.png"):
    (run.images / file).write_bytes(b"")
  run.saved |= same_data.describe(run.open(saved=None).source)
  run.unreadable().see(np.arange(len(run.open().source)))
  sizes = began_with(lines_of(str(run.workdir)))
  assert odd in sizes
  assert len(sizes) == 6  # not the name of two lines, which must stay
  (run.images / odd).unlink()
  run.open()


def test_too_many_still_unreadable_are_told_at_the_start(tmp_path):
  run = Run(tmp_path, broken=["a/1.png", "b/3.png"])
  with pytest.raises(UsageError, match=r"2 of 5 .* Mend them in their places"):
    run.unreadable(share=0.3)
  write(run.images / "b/3.png")
  assert run.unreadable(share=0.3).indices == {1}


def test_images_for_want_of_which_reading_ends_are_named(tmp_path):
  run = Run(tmp_path)
  for file in NAMES:
    size = (run.images / file).stat().st_size
    (run.images / file).write_bytes(bytes(size))
  found = run.unreadable()
  source = sources.ReadableSource(sources.open_source(run.name, "all"))
  with pytest.raises(UsageError, match="Of 5 neighbour"), found.watching():
    source[3]
  assert len(lines_of(str(run.workdir))) == 5
