"""The validation split of sets that bring none."""

import numpy as np
import pytest

from byol_flax.evaluation import held_out
from input_pipeline import sources
from input_pipeline.errors import RunError, UsageError
from tests.input_pipeline.prepare.test_prepare import (
  byol_prepare,
  jpeg,
  write,
)
from tests.input_pipeline.test_folders import make_folder


def names(name, split):
  source = held_out.open_split(name, split, None)
  return [source.example_name(i) for i in range(len(source))]


def test_every_tenth_image_is_valid_and_no_other(tmp_path):
  train, valid = (
    held_out.open_split("digits", split, None)
    for split in (held_out.TRAIN, held_out.VALID)
  )
  assert (len(train), len(valid)) == (1294, 143)
  assert sources.shared_examples(train, valid) == 0
  whole = sources.open_source("digits", "train")
  assert valid[3]["label"] == whole[39]["label"]
  assert np.array_equal(train[9]["image"], whole[10]["image"])
  files = [f"train/{k}/{i:02}.png" for k in "ab" for i in range(20)]
  folder = make_folder(tmp_path / "tenth", files)
  assert [name[-8:] for name in names(folder, "valid")] == [
    *("a/09.png", "a/19.png", "b/09.png", "b/19.png")
  ]
  assert len(names(folder, "train_without_valid")) == 36


def test_a_validation_split_of_the_set_itself_comes_first(tmp_path):
  files = [f"{s}/a/{i}.png" for s in ("train", "val") for i in range(11)]
  folder = make_folder(tmp_path / "data", files)
  assert all("/val/a/" in name for name in names(folder, "valid"))
  assert len(names(folder, "train_without_valid")) == 11


def test_what_is_not_there_is_told(tmp_path):
  folder = make_folder(tmp_path / "few", [f"train/a/{i}.png" for i in range(9)])
  for name, split, told in (
    (folder, "valid", "9 images in train, of which every tenth"),
    ("digits", "validation", "no split 'validation'"),
    (f"folder:{tmp_path}/gone", "valid", "does not exist"),
    ("cifar10", "valid", "download_and_prepare"),
  ):
    with pytest.raises(UsageError, match=told):
      held_out.open_split(name, split, str(tmp_path))


def test_a_damaged_validation_split_is_not_taken_for_none(tmp_path):
  images = ((f"{i:02}.jpg", jpeg(i)) for i in range(40))
  write(tmp_path / "photos", {f"train/a/{name}": data for name, data in images})
  write(tmp_path / "photos", {"val/a/x.jpg": jpeg(99)})
  out = tmp_path / "out"
  byol_prepare(tmp_path / "photos", out, "--workers=1")
  assert len(held_out.open_split("photos", "valid", str(out))) == 1
  (facts,) = out.rglob("prepared-validation.json")
  facts.write_text("{")
  with pytest.raises(RunError, match=r"prepared-validation\.json should be"):
    held_out.open_split("photos", "valid", str(out))
