"""Images that could not be read: they are counted, and may be mended."""

import json
import types

import numpy as np
import pytest
from PIL import Image

from byol_flax.evaluation import dense_splits, place
from byol_flax.runs.distributed import Processes
from configs import depth, detection, segmentation
from input_pipeline import dense_sources, sources, unreadable
from input_pipeline.errors import UsageError
from tests.evaluation import dense_data, settings
from tests.input_pipeline import voc_folders


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
