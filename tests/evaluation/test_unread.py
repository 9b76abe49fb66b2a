"""Images that could not be read: they are counted, and may be mended."""

import dataclasses
import json
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from byol_flax.evaluation import (
  dense,
  dense_splits,
  knn,
  place,
  training,
  unread,
)
from byol_flax.runs.distributed import Processes
from configs import depth, detection, segmentation
from configs import knn as knn_config
from input_pipeline import (
  dense_depth,
  dense_sources,
  sources,
  subsets,
  unreadable,
)
from input_pipeline.errors import UsageError
from tests.evaluation import dense_data, settings
from tests.input_pipeline import voc_folders
from tests.input_pipeline.test_folders import make_folder


def voc(folder):
  """Two images with masks and boxes."""
  for name in "ab":
    voc_folders.write_image(folder, f"{name}.jpg", seed=ord(name))
    mask = folder / f"SegmentationClass/{name}.png"
    mask.parent.mkdir(exist_ok=True)
    write_mask(mask, ord(name) % 5)
    voc_folders.write_boxes(
      folder, name, voc_folders.annotation(voc_folders.thing())
    )
  for kind in ("Main", "Segmentation"):
    voc_folders.write_list(folder, kind, "train", ["a", "b"])
  return f"voc:{folder}"


def write_mask(path, label):
  """Of one class, in a file whose size does not depend on it."""
  size = (voc_folders.HEIGHT, voc_folders.WIDTH)
  mask = Image.fromarray(np.full(size, label, np.uint8))
  mask.save(path, compress_level=0)


def frames(folder):
  return dense_data.depth_folder(folder, train=2, test=1)


# Config, what writes the images, what opens them, and one of them.
DENSE = {
  "masks": (segmentation, voc, "open_classes", "JPEGImages/b.jpg"),
  "boxes": (detection, voc, "open_boxes", "JPEGImages/b.jpg"),
  "depth": (depth, frames, "open_depth", "train/1.png"),
}


def begun(workdir, module, **changes):
  """A setting whose evaluation has kept something."""
  workdir.mkdir()
  place.claim(str(workdir), {"config": {}}, Processes())
  (workdir / "scores.json").touch()
  return settings.setting(
    module.get_config(),
    workdir,
    opened=types.SimpleNamespace(config=settings.small_config()),
    train_split="train",
    **changes,
  )


@pytest.mark.parametrize("task", DENSE)
def test_images_of_dense_tasks_may_be_mended_in_their_places(tmp_path, task):
  module, write, open_, image = DENSE[task]
  made = begun(
    tmp_path / "run",
    module,
    data_name=write(tmp_path / "data"),
  )

  def open_split():
    opens = getattr(dense_sources, open_)
    return dense_splits.open_split(made, "train_split", opens)

  path = tmp_path / "data" / image
  sound = path.read_bytes()
  path.write_bytes(sound[:-40])  # its header is sound
  found = open_split()
  (tmp_path / "run/seed-0").mkdir()
  seen = unreadable.UnreadableImages(
    sources.ReadableSource(found),
    str(tmp_path / "run/seed-0/unreadable-0.txt"),
    0.0,
    may_be_removed=not dense_sources.is_dense(found),
  )
  with pytest.raises(UsageError, match="in their places, or raise"):
    seen.see(np.array([1]))
  path.write_bytes(sound)
  assert len(open_split()) == 2
  # All others must stay.
  (path.parent / path.name.replace("b", "a").replace("1", "0")).write_bytes(
    sound
  )
  with pytest.raises(UsageError, match="are not those that the evaluation"):
    open_split()


def test_a_label_of_the_same_size_is_another_label(tmp_path):
  name = voc(tmp_path / "data")
  made = begun(tmp_path / "run", segmentation, data_name=name)

  def open_split():
    return dense_splits.open_split(
      made, "train_split", dense_sources.open_classes
    )

  before = open_split()
  # As an older version noted it, which knew only the size.
  path = tmp_path / "run" / place.IDENTITY
  noted = json.loads(path.read_text())
  old = dense_sources.old_fingerprint(before)
  assert old != before.fingerprint
  noted["images"]["train_split"]["data_fingerprint"] = old
  path.write_text(json.dumps(noted))
  assert open_split().fingerprint == before.fingerprint
  write_mask(tmp_path / "data/SegmentationClass/a.png", 4)
  assert old == dense_sources.old_fingerprint(
    dense_sources.open_classes(name, "train")
  )
  with pytest.raises(UsageError, match="are not those that the evaluation"):
    open_split()


@pytest.fixture
def cats_and_dogs(tmp_path):
  names = [
    f"{split}/{kind}/{i}.png"
    for split in ("train", "test")
    for kind in ("cat", "dog")
    for i in range(4)
  ]
  return make_folder(tmp_path / "images", names)


@pytest.mark.slow
def test_what_is_left_out_is_counted_refused_and_mended(
  tmp_path, cats_and_dogs
):
  """By kNN, which trains nothing, but reads as all protocols do."""
  workdir = tmp_path / "run"
  workdir.mkdir()
  place.claim(str(workdir), {"config": {}}, Processes())
  opened = settings.untrained(settings.mesh_of(2))
  lines = []

  def run(share):
    made = settings.setting(
      knn_config.get_config(),
      workdir,
      opened=opened,
      data_name=cats_and_dogs,
      neighbours=(1,),
      batch_size=4,
      max_unreadable_share=share,
    )
    found = knn.run(dataclasses.replace(made, tell=lines.append))
    (workdir / "result.json").touch()
    return [split["unreadable"] for split in found["splits"]], found["counted"]

  assert run(0.001) == ([0, 0], {"bank": 8, "queries": 8})
  damaged = tmp_path / "images/test/dog/0.png"
  sound = damaged.read_bytes()
  damaged.write_bytes(b"x" * len(sound))
  assert run(0.2) == ([0, 1], {"bank": 8, "queries": 7})
  told = f"1 image(s) of test could not be read and are left out: {damaged}"
  assert told in lines
  with pytest.raises(UsageError) as refused:
    run(0.1)
  report = workdir / "unreadable/unreadable-test_split.txt"
  assert str(refused.value) == (
    "1 of the 8 images of test (test_split) could not be read, more than the "
    f"allowed share of 0.1: {damaged}. All names are in {report}. Mend them in "
    "their places, remove them, or raise max_unreadable_share, and give the "
    "command again."
  )
  assert len(report.read_text().splitlines()) == 1
  damaged.write_bytes(sound + b"mended")
  assert run(0.001) == ([0, 0], {"bank": 8, "queries": 8})
  damaged.unlink()  # by somebody who does without it
  assert run(0.001)[0] == [0, 1]


def test_a_training_goes_on_without_what_was_removed(tmp_path, cats_and_dogs):
  found = sources.ReadableSource(sources.open_source(cats_and_dogs, "train"))
  earlier = [unreadable.Line(i, 9, "") for i in (0, 1)]
  first, second = (tmp_path / f"images/train/cat/{i}.png" for i in (0, 1))

  def look_again():
    path = str(tmp_path / "unreadable-0.txt")
    return unreadable.UnreadableImages(found, path, 0.2, earlier).indices

  for path in (first, second):
    path.write_bytes(b"x")
  with pytest.raises(UsageError, match="2 of 8 images"):
    look_again()
  first.unlink()
  assert look_again() == {0, 1}


def test_lists_of_a_refused_evaluation_are_not_those_of_the_next(
  tmp_path, cats_and_dogs
):
  workdir = str(tmp_path / "run")
  (tmp_path / "run").mkdir()
  for name in ("a", "b"):
    place.claim(workdir, {"config": {"name": name}}, Processes())
    assert not unread.began_with(workdir, "train_split")
    source = sources.open_source(cats_and_dogs, "test")
    place.claim_images(workdir, "test_split", source, Processes())
    report = place.list_of(workdir, "test_split")
    assert not report.exists()
    report.parent.mkdir(exist_ok=True)
    unreadable.write(report, source, [3])
    assert not unread.began_with(workdir, "train_split")
    assert unread.began_with(workdir, "test_split")


def test_a_score_is_kept_with_what_was_unreadable_then(tmp_path, cats_and_dogs):
  def start():
    made = settings.setting(
      knn_config.get_config(),
      tmp_path / "run",
      opened=types.SimpleNamespace(config=settings.small_config()),
      data_name=cats_and_dogs,
      max_unreadable_share=0.5,
    )
    return made, made.open_split("test_split")

  def report(made, split):
    def find():
      (tmp_path / "run").mkdir(exist_ok=True)
      part = sources.Part(split, "some", [2, 5, 7])
      made.missed(part, [0, 2])
      return {"score": 1}

    assert training.once(made, "scores-x", find) == {"score": 1}
    return [x["unreadable"] for x in made.describe(split, split.source)]

  assert report(*start()) == [2, 2]
  made, split = start()
  assert report(made, split) == [2, 2]  # kept by the first start
  with made.config.unlocked():
    made.config.max_unreadable_share = 0.2
  made.missing.trained(split, [1])
  made.missed(split, [2])  # the others may have been mended
  assert made.describe(split.source)[0]["unreadable"] == 3
  with pytest.raises(UsageError, match="2 of the 8 images of test"):
    made.missed(split, [5])
  (tmp_path / "run/scores-x.json").write_text('{"score": 1}')
  assert report(*start()) == [None, None]  # an older version did not count
  made, split = start()
  with made.config.unlocked():
    made.config.max_unreadable_share = 1.0
  with pytest.raises(UsageError, match=r"None of the 8 images of test .* Rest"):
    made.missed(split, range(8))


def test_dense_tasks_count_what_they_leave_out(tmp_path):
  name = frames(tmp_path / "data")
  made = settings.setting(
    depth.get_config(),
    tmp_path / "run",
    opened=types.SimpleNamespace(config=settings.small_config()),
    data_name=name,
    train_split="train",
    evaluation_batch_size=2,
  )
  split = dense_splits.open_split(made, "train_split", dense_sources.open_depth)
  path = tmp_path / "data/train/1.png"
  path.write_bytes(path.read_bytes()[:-400])
  mask = jax.jit(lambda variables, batch: batch["mask"])
  with pytest.raises(
    UsageError, match=r"more than the allowed share of 0\.001"
  ):
    [*dense.each_batch(made, mask, {}, split, dense_depth.EvalDepth())]
  assert made.describe(split)[0]["unreadable"] == 1


def test_what_two_trainings_on_both_splits_could_not_read(
  tmp_path, cats_and_dogs
):
  train, test = (
    sources.open_source(cats_and_dogs, split) for split in ("train", "test")
  )
  found = unread.Unread()
  both = subsets.Joined(train, sources.Part(test, "some", [3, 1]))
  found.trained(both, [0, 9])
  found.trained(both, [0, 7])
  assert found.as_json() == {"train": [0, 7], "test": [1]}


class Two(Processes):
  """The other one has found image 3."""

  def union(self, numbers):
    return super().union([*numbers, 3])


class State(NamedTuple):
  step: jax.Array


def test_processes_agree_on_what_a_training_could_not_read(
  tmp_path, cats_and_dogs
):
  """One of them may not see yet what the other has written."""
  made = begun(tmp_path / "run", depth, data_name=cats_and_dogs)
  made = dataclasses.replace(made, processes=Two())
  source = made.open_source("train_split")
  (tmp_path / "run/done").mkdir()
  unreadable.write(tmp_path / "run/done/unreadable-0.txt", source, [5])
  training.run(
    training.Training(
      name="done",
      source=source,
      stream=None,
      row_bytes=0,
      batch_size=1,
      total_steps=0,
      create_state=lambda: State(jnp.zeros((), int)),
      step_fn=None,
      evaluate=None,
      evaluate_every=1,
      headline=("", ""),
    ),
    made,
  )
  assert made.missing.as_json() == {"train": [3, 5]}
