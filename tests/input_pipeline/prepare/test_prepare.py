"""From folders, lists and tar files to shards, and again after a kill."""

import io
import os
import pathlib
import tarfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy import io as scipy_io

from byol_flax import main
from input_pipeline import locks, sources
from input_pipeline.errors import UsageError
from input_pipeline.prepare import collecting, shards


def picture(seed, size=(48, 64)):
  """A smooth image, unlike that of any other seed."""
  coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
  return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def jpeg(seed, **options):
  return cv2.imencode(".jpg", picture(seed, **options))[1].tobytes()


def write(folder, files):
  for name, data in files.items():
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return str(folder)


def byol_prepare(*words):
  assert main.main(["prepare", *map(str, words)]) == 0


def prepare_photos(items, out, tell):
  """The split train, in this process, so that `tell` can interrupt it."""
  return shards.write_split(
    items,
    str(out),
    "photos",
    "train",
    version="1.0.0",
    classes=["a", "b"],
    keep_duplicates=False,
    longest_side=None,
    num_workers=1,
    tell=tell,
  )


def contents(name, split, data_dir):
  """(bytes, class) of every example, as our own source reads them."""
  source = sources.open_source(name, split, str(data_dir))
  found = [source[i] for i in range(len(source))]
  return sorted((x["image"], int(x["label"])) for x in found)


@pytest.fixture
def photos(tmp_path):
  files = {f"train/{'ab'[i % 2]}/{i:02}.jpg": jpeg(i) for i in range(20)}
  files |= {f"val/{'ab'[i % 2]}/{i:02}.jpg": jpeg(100 + i) for i in range(6)}
  files["val/b/notes.txt"] = b"not an image, and not called one"
  return write(tmp_path / "photos", files)


def test_a_folder_becomes_a_data_set(photos, tmp_path, capsys):
  out = tmp_path / "out"
  byol_prepare(photos, out, "--workers=1")
  expected = sorted((jpeg(i), i % 2) for i in range(20))
  assert contents("photos", "train", out) == expected
  expected = sorted((jpeg(100 + i), i % 2) for i in range(6))
  assert contents("photos", "validation", out) == expected
  words = capsys.readouterr().out
  assert "train: 20 images, 2 classes (a, b), in 1 shard(s)" in words
  assert "photos: ignored 1 file: 1 other" in words
  assert "no image occurs in train" in words
  assert "--config.data.name=photos" in words


def test_tfds_reads_it_by_itself(photos, tmp_path):
  out = tmp_path / "out"
  byol_prepare(photos, out, "--workers=1", "--name=shots", "--version=2.0.1")
  builder = tfds.builder_from_directory(str(out / "shots" / "2.0.1"))
  assert builder.info.splits["train"].num_examples == 20
  assert builder.info.features["label"].names == ["a", "b"]
  for example in builder.as_data_source("train"):
    i = int(example["file_name"].decode().split("/")[1][:2])
    assert example["label"] == i % 2
    assert example["image"].shape == (48, 64, 3)
    assert (
      np.abs(example["image"].astype(int) - picture(i)[..., ::-1]).max() < 60
    )


def test_a_list_of_files_without_classes(tmp_path):
  write(tmp_path / "some", {f"{i}.jpg": jpeg(i) for i in range(5)})
  listed = tmp_path / "list.txt"
  listed.write_text("some/3.jpg\nsome/1.jpg\n\n")
  byol_prepare(listed, tmp_path / "out", "--split=some", "--workers=1")
  assert contents("list", "some", tmp_path / "out") == sorted(
    (jpeg(i), -1) for i in (1, 3)
  )
  listed.write_text("some/3.jpg\tcat\nsome/1.jpg\tdog\n")
  found = collecting.collect(str(listed), "train").splits["train"]
  assert [(x.name, x.class_name) for x in found] == [
    ("some/1.jpg", "dog"),
    ("some/3.jpg", "cat"),
  ]


def tar(files):
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w") as archive:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return out.getvalue()


WORDNET = ["n01440764", "n01443537", "n02119789"]


def development_kit(numbers):
  """ImageNet's, with the identifiers in another order than the names'."""
  kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
  table = np.zeros((4, 1), kinds)
  for row, (number, name) in enumerate(
    [(2, WORDNET[0]), (3, WORDNET[1]), (1, WORDNET[2]), (1001, "n1")]
  ):
    table[row, 0] = (number, name, "a word")
  meta = io.BytesIO()
  scipy_io.savemat(meta, {"synsets": table})
  truth = "".join(f"{number}\n" for number in numbers).encode()
  packed = io.BytesIO()
  with tarfile.open(fileobj=packed, mode="w:gz") as archive:
    for name, data in {
      "kit/data/meta.mat": meta.getvalue(),
      "kit/data/ILSVRC2012_validation_ground_truth.txt": truth,
    }.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return packed.getvalue()


def test_imagenets_archives(tmp_path):
  """A tar file of tar files, and validation images with a development kit."""
  inner = {
    f"{name}.tar": tar({f"{name}_{i}.JPEG": jpeg(10 * k + i) for i in range(4)})
    for k, name in enumerate(WORDNET)
  }
  inner["lost+found/x.JPEG"] = inner["notes.txt"] = b""
  valid = {f"./ILSVRC2012_val_{i:08}.JPEG": jpeg(50 + i) for i in range(5)}
  write(
    tmp_path,
    {
      "train.tar": tar(inner),
      "val.tar": tar(valid),
      "kit.tar.gz": development_kit([3, 1, 1, 2, 3]),
    },
  )
  out = tmp_path / "out"
  common = ("--name=imagenet2012", "--version=5.1.0", "--workers=1")
  byol_prepare(tmp_path / "train.tar", out, *common)
  byol_prepare(
    tmp_path / "val.tar",
    out,
    "--split=validation",
    f"--labels={tmp_path / 'kit.tar.gz'}",
    *common,
  )
  builder = tfds.builder_from_directory(str(out / "imagenet2012" / "5.1.0"))
  assert builder.info.features["label"].names == WORDNET
  expected = sorted((jpeg(10 * k + i), k) for k in range(3) for i in range(4))
  source = builder.as_data_source(
    "train", decoders={"image": tfds.decode.SkipDecoding()}
  )
  assert sorted((x["image"], int(x["label"])) for x in source) == expected
  labels = [1, 2, 2, 0, 1]  # of WordNet's names, in their order
  source = builder.as_data_source(
    "validation", decoders={"image": tfds.decode.SkipDecoding()}
  )
  assert sorted((x["image"], int(x["label"])) for x in source) == sorted(
    (jpeg(50 + i), label) for i, label in enumerate(labels)
  )


class Killed(BaseException):
  """Nothing of the program sees it coming."""


def files_of(folder):
  return {
    path.name: path.read_bytes()
    for path in pathlib.Path(folder).iterdir()
    if "array_record" in path.name
  }


def test_a_killed_preparation_goes_on_to_the_same_shards(
  photos, tmp_path, monkeypatch
):
  monkeypatch.setattr(shards, "_BLOCK", 4)
  monkeypatch.setattr(shards, "_SHARD_BYTES", 4 * len(jpeg(0)))
  items = collecting.collect(photos, "train").splits["train"]

  def run(out, alive):
    """Lives until it has told `alive` times."""
    told = []

    def tell(phase, done, total):
      told.append((phase, done, total))
      if len(told) > alive:
        raise Killed

    return prepare_photos(items, tmp_path / out, tell)

  whole = run("whole", 999)
  assert whole.shards == 5
  expected = files_of(whole.folder)
  for alive in range(10):
    with pytest.raises(Killed):
      run("again", alive)
    folder = tmp_path / "again" / "photos" / "1.0.0"
    assert not (folder / "dataset_info.json").exists()
    found = run("again", 999)
    assert found.fingerprint == whole.fingerprint
    assert files_of(found.folder) == expected
    assert not [x for x in os.listdir(folder) if "prepar" in x and "." not in x]
    assert run("again", 0) == found  # nothing left to do, and nothing done
    for path in folder.iterdir():
      path.unlink()


def test_any_number_of_workers_writes_the_same(photos, tmp_path, monkeypatch):
  for workers in (1, 3):
    byol_prepare(photos, tmp_path / str(workers), f"--workers={workers}")
  one, three = (
    files_of(tmp_path / str(n) / "photos" / "1.0.0") for n in (1, 3)
  )
  assert one == three
  assert len(one) == 2


def test_what_is_corrupt_or_there_twice_is_left_out_and_named(
  photos, tmp_path, capsys
):
  write(
    photos,
    {
      "train/a/bad.jpg": jpeg(0)[:300],
      "train/a/junk.png": b"junk",
      "train/b/twin.jpg": jpeg(4),
    },
  )
  out = tmp_path / "out"
  byol_prepare(photos, out, "--workers=1")
  # Which of two equal files stays depends on their names; their bytes do not.
  found = contents("photos", "train", out)
  assert sorted(x for x, _ in found) == sorted(jpeg(i) for i in range(20))
  report = (out / "photos/1.0.0/quarantine-train.tsv").read_text().splitlines()
  rows = [line.split("\t") for line in report]
  assert {(name, kind) for name, kind, _ in rows[:2]} == {
    ("a/bad.jpg", "corrupt"),
    ("a/junk.png", "corrupt"),
  }
  assert rows[2][1] == "same as"
  assert {rows[2][0], rows[2][2]} == {"a/04.jpg", "b/twin.jpg"}
  words = capsys.readouterr().out
  assert "train: 2 cannot be decoded and were left out" in words
  assert "train: 1 have the bytes of another one and were left out" in words
  byol_prepare(photos, tmp_path / "all", "--workers=1", "--keep-duplicates")
  assert len(contents("photos", "train", tmp_path / "all")) == 21


def test_leaks_between_splits_are_reported(photos, tmp_path, capsys):
  smaller = cv2.resize(picture(7), (40, 30), interpolation=cv2.INTER_AREA)
  write(
    photos,
    {
      "val/a/same.jpg": jpeg(3),
      "val/a/like.png": cv2.imencode(".png", smaller)[1].tobytes(),
    },
  )
  out = tmp_path / "out"
  byol_prepare(photos, out, "--workers=1")
  folder = out / "photos" / "1.0.0"
  lines = (folder / "leaks-validation-in-train.tsv").read_text().splitlines()
  found = sorted(line.split("\t") for line in lines)
  assert found[0][:2] == ["a/like.png", "b/07.jpg"]
  assert "looks alike" in found[0][2]
  assert found[1] == ["a/same.jpg", "b/03.jpg", "same bytes"]
  assert "validation: 2 image(s) occur in train too" in capsys.readouterr().out
  # Against a set of another name.
  write(tmp_path / "more", {f"x/{i}.jpg": jpeg(200 + i) for i in range(3)})
  write(tmp_path / "more", {"x/stolen.jpg": jpeg(12)})
  byol_prepare(
    tmp_path / "more", out, "--workers=1", f"--against={folder}:train"
  )
  assert "train: 1 image(s) occur in train of " in capsys.readouterr().out


def test_a_prepared_set_may_be_moved(photos, tmp_path, capsys):
  byol_prepare(photos, tmp_path / "a", "--name=photos", "--workers=1")
  (tmp_path / "a").rename(tmp_path / "b")
  capsys.readouterr()
  byol_prepare(photos, tmp_path / "b", "--name=photos", "--workers=1")
  said = capsys.readouterr().out
  assert str(tmp_path / "b") in said
  assert str(tmp_path / "a") not in said


def test_two_at_once_do_not_mix(photos, tmp_path):
  words = ["prepare", str(photos), str(tmp_path / "out"), "--name=photos"]
  work = tmp_path / "out" / "photos" / "1.0.0" / "preparing-train"
  work.mkdir(parents=True)
  with (
    locks.taken(f"{work}/lock"),
    pytest.raises(UsageError, match=r"Split train of .* by process \d+ on"),
  ):
    main.main([*words, "--workers=1"])
  assert main.main([*words, "--workers=1"]) == 0


def test_what_a_kill_left_of_a_finished_split_goes(photos, tmp_path):
  byol_prepare(photos, tmp_path / "out", "--name=photos", "--workers=1")
  work = tmp_path / "out" / "photos" / "1.0.0" / "preparing-train"
  write(work, {"plan": b"x", "lock": b"", "part/0": b""})
  byol_prepare(photos, tmp_path / "out", "--name=photos", "--workers=1")
  assert not work.exists()
  assert len(contents("photos", "train", tmp_path / "out")) == 20


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_in_a_tar_are_counted(tmp_path, capsys, kind):
  path = tmp_path / "photos.tar"
  path.write_bytes(tar({f"a/{i}.jpg": jpeg(i) for i in range(3)}))
  with tarfile.open(path, "a") as archive:
    for name in ("b/0.jpg", "b/notes"):
      member = tarfile.TarInfo(name)
      member.type, member.linkname = kind, "a/0.jpg"
      archive.addfile(member)
  byol_prepare(path, tmp_path / "out", "--name=photos", "--workers=1")
  assert "ignored 1 file: 1 link" in capsys.readouterr().out


def test_names_may_be_any_bytes(tmp_path):
  folder = tmp_path / "files"
  names = [b"caf\xe9", b"two\nlines", b"a\ttab", "größe".encode(), b"a b"]
  for i, name in enumerate(names):
    path = os.path.join(os.fsencode(folder), b"cl\xe4ss", name + b".png")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
      file.write(jpeg(i) if i else b"no image")
  byol_prepare(folder, tmp_path / "out", "--name=odd", "--workers=1")
  source = sources.open_source("odd", "train", str(tmp_path / "out"))
  assert source.num_classes == 1
  found = {source.example_name(i) for i in range(len(source))}
  assert len(found) == 4
  report = tmp_path / "out" / "odd" / "1.0.0" / "quarantine-train.tsv"
  (line,) = report.read_text().splitlines()
  assert line.startswith("cl\\xe4ss/caf\\xe9.png\tcorrupt\t")


def test_another_set_is_not_mixed_in(photos, tmp_path):
  out = tmp_path / "out"
  byol_prepare(photos, out, "--workers=1")
  write(photos, {"train/a/new.jpg": jpeg(77)})
  with pytest.raises(UsageError, match="split train of other images"):
    byol_prepare(photos, out, "--workers=1")
  other = write(tmp_path / "other", {"c/1.jpg": jpeg(78)})
  with pytest.raises(UsageError, match="'c' is none of them"):
    byol_prepare(other, out, "--workers=1", "--name=photos", "--split=test")


def test_a_file_that_changes_meanwhile_is_noticed(photos, tmp_path):
  def tell(phase, done, total):
    if phase == "looking at images":
      path = pathlib.Path(photos, "train/a/00.jpg")
      path.write_bytes(path.read_bytes()[::-1])

  with pytest.raises(UsageError, match="changed while it was prepared"):
    prepare_photos(
      collecting.collect(photos, "train").splits["train"],
      tmp_path / "out",
      tell,
    )
