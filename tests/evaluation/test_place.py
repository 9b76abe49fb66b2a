"""A folder of an evaluation is of one encoder, one config and its images."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from byol_flax.evaluation import encoder, place, representations
from byol_flax.runs import same_data
from byol_flax.runs.distributed import Processes
from configs import byol, few_label, knn
from input_pipeline import sources, subsets, unreadable
from input_pipeline.errors import UsageError
from tests.evaluation import settings
from tests.input_pipeline.test_folders import make_folder
from tests.weights import made, torch_made

NAMES = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)]


@pytest.fixture
def images(tmp_path):
  return make_folder(tmp_path / "images", NAMES)


def identity(**of_encoder):
  return {"config": {"protocol": "knn"}, "encoder": {"step": 3, **of_encoder}}


def claim(workdir, **of_encoder):
  workdir.mkdir(exist_ok=True)
  place.claim(str(workdir), identity(**of_encoder), Processes())


def open_images(workdir, name):
  made = settings.setting(
    knn.get_config(),
    workdir,
    data_name=name,
    data_dir=None,
    train_split="all",
  )
  return made.open_split("train_split")


@pytest.mark.slow
def test_what_was_kept_is_not_used_for_other_images(tmp_path, images):
  workdir = tmp_path / "evaluation"
  claim(workdir)
  assert len(open_images(workdir, images)) == 8
  # Nothing was kept yet, so other images may be meant.
  (tmp_path / "images/cat/0.png").unlink()
  assert len(open_images(workdir, images)) == 7
  (workdir / "features-train.npz").touch()
  claim(workdir)
  assert len(open_images(workdir, images)) == 7
  # The same images may lie elsewhere.
  shutil.copytree(tmp_path / "images", tmp_path / "copy")
  assert len(open_images(workdir, f"folder:{tmp_path}/copy")) == 7
  shutil.copy(tmp_path / "copy/dog/0.png", tmp_path / "images/dog/new.png")
  with pytest.raises(
    UsageError, match=r"\(train_split: all\) are not those that the evaluation"
  ):
    open_images(workdir, images)


def test_a_folder_of_an_older_version_takes_the_images_of_now(tmp_path, images):
  workdir = tmp_path / "evaluation"
  claim(workdir)
  (workdir / "scores.json").touch()
  open_images(workdir, images)
  found = json.loads((workdir / place.IDENTITY).read_text())
  assert found["images"] == {
    "train_split": same_data.describe(sources.open_source(images, "all"))
  }


def test_classes_of_other_names_are_other_images(tmp_path, images):
  """As where a file beside masks names their classes."""
  workdir = tmp_path / "evaluation"
  claim(workdir)
  (workdir / "scores.json").touch()
  source = open_images(workdir, images)
  source.class_names = ("dog", "cat")
  with pytest.raises(UsageError, match="names of their classes, differ"):
    place.claim_images(str(workdir), "train_split", source, Processes())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mended", "removed"])
def test_images_that_a_training_could_not_read_may_change(
  tmp_path, images, how
):
  workdir = tmp_path / "evaluation"
  claim(workdir)
  damaged = tmp_path / "images/cat/2.png"
  sound = damaged.read_bytes()
  damaged.write_bytes(sound[:40])
  source = sources.ReadableSource(open_images(workdir, images))
  (workdir / "network").mkdir()
  report = workdir / "network/unreadable-0.txt"
  seen = unreadable.UnreadableImages(
    source, str(report), 0.0, share_key="max_unreadable_share"
  )
  with pytest.raises(UsageError, match=r"remove them, or raise max_unreadable"):
    seen.see(np.array([2]))
  if how == "mended":
    damaged.write_bytes(sound)
  else:
    damaged.unlink()
  again = open_images(workdir, images)
  assert len(again) == 8
  (tmp_path / "images/cat/3.png").write_bytes(sound + b"0")
  with pytest.raises(UsageError, match="are not those that the evaluation"):
    open_images(workdir, images)


@pytest.mark.parametrize(
  ("train", "valid"),
  [
    ("all[:60%]", "all[60%:]"),
    ("train_without_valid", "valid"),
    ("train", "val"),
  ],
)
@pytest.mark.parametrize("of_train", [True, False])
def test_what_was_unreadable_in_train_or_valid_may_be_removed(
  tmp_path, train, valid, of_train
):
  """Both have images of the same names, if they lie in two folders."""
  names = [f"train/{kind}/{i}.png" for kind in "ab" for i in range(10)]
  if train == "train":
    names += [f"val/{kind}/{i}.png" for kind in "ab" for i in range(1, 9)]
  name = make_folder(tmp_path / "images", names)
  if train.startswith("all"):
    name += "/train"
  workdir = tmp_path / "evaluation"
  claim(workdir)
  made = settings.setting(
    knn.get_config(),
    workdir,
    data_name=name,
    data_dir=None,
    train_split=train,
  )
  with made.config.unlocked():
    made.config.valid_split = valid
  first = [made.open_split(f"{key}_split") for key in ("train", "valid")]
  (workdir / "network").mkdir()
  both = subsets.Joined(*first)
  number = 2 if of_train else len(first[0])
  unreadable.UnreadableImages(
    sources.ReadableSource(both),
    str(workdir / "network/unreadable-0.txt"),
    1.0,
  ).see(np.array([number]))
  assert [len(made.open_split(f"{x}_split")) for x in ("train", "valid")] == [
    len(x) for x in first
  ]
  pathlib.Path(both.example_name(number)).unlink()
  again = [made.open_split(f"{key}_split") for key in ("train", "valid")]
  assert [len(x) for x in again] == [len(x) for x in first]


def test_a_list_of_names_may_not_change_under_an_evaluation(tmp_path):
  claim(tmp_path)

  def claim_names(*names):
    place.claim_names(str(tmp_path), "subset_file", names, Processes())

  claim_names("a", "b")
  claim_names("c")  # nothing was kept yet
  (tmp_path / "scores-listed.json").touch()
  claim_names("c")
  with pytest.raises(UsageError, match="names in the list of subset_file are"):
    claim_names("c", "d")


def test_a_kill_while_the_folder_was_claimed_leaves_it_free(tmp_path):
  half = tmp_path / f"{place.IDENTITY}.tmp"
  half.write_text("{")
  claim(tmp_path)
  half.write_text("{")
  claim(tmp_path, step=4)  # nothing was kept yet


def test_a_damaged_record_of_an_evaluation_is_told(tmp_path):
  claim(tmp_path)
  (tmp_path / place.IDENTITY).write_text('{"config": ')
  with pytest.raises(UsageError, match=f"{place.IDENTITY} should be a JSON"):
    claim(tmp_path)


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ({"max_unreadable_share": 0.01}, {"max_unreadable_share": 0.5}),
    ({"classes_file": None}, {}),  # which depth had, and did not read
  ],
)
def test_an_evaluation_goes_on_where_a_config_may_change(
  tmp_path, before, after
):
  for changes in (before, after):
    config = {"protocol": "depth", **changes}
    place.claim(str(tmp_path), {"config": config}, Processes())
    (tmp_path / "scores.json").touch()


def test_images_outside_of_an_evaluation_are_nobodys(tmp_path, images):
  open_images(tmp_path, images)
  assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.slow
def test_random_weights_of_another_config_are_another_encoder(tmp_path):
  mesh = settings.mesh_of(1)

  def digest_of(**changes):
    config = settings.small_config()
    config.update(changes)
    opened = encoder.open_encoder(
      "random:x", mesh, read_config=lambda _: config
    )
    return opened.provenance["config_digest"]

  first = digest_of()
  others = [
    digest_of(seed=1),
    digest_of(augment={"size": 10}),
    digest_of(evaluation={"crop_ratio": 0.5}),
  ]
  assert len({first, *others}) == 4
  assert digest_of(epochs=3.0) == first
  workdir = tmp_path / "evaluation"
  claim(workdir)  # as an older version did, which did not know it
  (workdir / "features-train.npz").touch()
  claim(workdir, config_digest=first)
  shutil.rmtree(workdir)
  claim(workdir, config_digest=first)
  (workdir / "features-train.npz").touch()
  with pytest.raises(
    UsageError, match=r"another evaluation \(encoder\.config_"
  ):
    claim(workdir, config_digest=others[0])


@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_a_weight_file_is_not_shown_other_pixels_than_before(tmp_path, stem):
  """An older version showed 224 pixels to every network of PyTorch."""
  path = str(tmp_path / "a.safetensors")
  model = made.model_with(
    architecture="bottleneck:2-1:8-12:4",
    stem=stem,
    shortcut="identity",
    padding="symmetric",
  )
  save_file(torch_made.state_dict(model=model), path)
  opened = encoder.open_encoder(
    path, settings.mesh_of(1), read_config=lambda _: byol.get_config()
  )
  now, crop = opened.provenance, opened.crop
  assert (now["image_size"], now["crop_ratio"]) == (crop.size, crop.ratio)
  older = {k: now[k] for k in now if k not in ("image_size", "crop_ratio")}
  workdir = tmp_path / "evaluation"
  workdir.mkdir()

  def claim_for(of_encoder):
    identity = {"config": {}, "encoder": of_encoder}
    place.claim(str(workdir), identity, Processes())

  claim_for(older)
  (workdir / "features-train.npz").touch()
  if stem == "small":
    told = r"crop_ratio: 0\.875 there, 1\.0 now; encoder\.image_size: 224 th"
    with pytest.raises(UsageError, match=told):
      claim_for(now)
  else:
    claim_for(now)


def test_labels_are_not_taken_from_the_images_that_are_measured(tmp_path):
  made = settings.setting(
    few_label.get_config(), tmp_path, train_split="test", test_split="test"
  )
  with pytest.raises(UsageError, match="share 360 images"):
    representations.run(made)
