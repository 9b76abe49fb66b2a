import errno
import os

import cloudpickle
import cv2
import numpy as np
import pytest

from input_pipeline import folders, retries, sources
from input_pipeline.decoding import decode_image
from input_pipeline.errors import StorageError, UsageError
from input_pipeline.folders import FolderSource
from input_pipeline.prepare import collecting
from input_pipeline.sources import open_source


def picture(seed, height=6, width=5):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, seed=0):
  """Writes `picture(seed)` and the folders above it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  _, data = cv2.imencode(".png", picture(seed)[..., ::-1])
  path.write_bytes(data.tobytes())


def make_folder(root, names):
  """One image per name, the k-th of them `picture(k)`."""
  for seed, name in enumerate(names):
    write(root / name, seed)
  return f"folder:{root}"


def relative(source, root):
  return [
    os.path.relpath(source.example_name(i), root) for i in range(len(source))
  ]


def labels(source):
  return [int(source[i]["label"]) for i in range(len(source))]


def test_folder_is_read_whole_and_in_order(tmp_path):
  names = ["cat/b.PNG", "cat/a.png", "dog/x/y/c.png", "Z.png", "cat.png"]
  source = open_source(make_folder(tmp_path, names), "all")
  order = ["Z.png", "cat.png", "cat/a.png", "cat/b.PNG", "dog/x/y/c.png"]
  assert relative(source, tmp_path) == order
  assert labels(source) == [-1, -1, 0, 0, 1]
  assert source.num_classes == 2
  for i, name in enumerate(order):
    example = source[i]
    expected = picture(names.index(name))
    assert isinstance(example["image"], bytes)
    np.testing.assert_array_equal(decode_image(example["image"]), expected)
    assert example["label"].dtype == np.int32


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
  name = make_folder(tmp_path, [f"{k % 3}/{k}.png" for k in range(20)])
  expected = relative(open_source(name, "all"), tmp_path)
  scandir = os.scandir

  class Reversed:
    def __init__(self, path):
      with scandir(path) as entries:
        self.entries = list(entries)[::-1]

    def __enter__(self):
      return iter(self.entries)

    def __exit__(self, *error):
      pass

  monkeypatch.setattr(os, "scandir", Reversed)
  assert relative(open_source(name, "all"), tmp_path) == expected


def test_extensions_and_hidden_files(tmp_path):
  good = ["a.JPG", "b.jpeg", "c.Png", "d.webp", "e.BMP", "f.gif", "g.jfif"]
  good += ["h.JPE", "i.tif", "j.tiff", "k.avif"]
  bad = ["l.txt", "m.png.part", ".n.png", ".git/o.png", "png", "p.psd", "q.PSD"]
  name = make_folder(tmp_path, [*good, *bad, "r.svg", "x/.y/l.png"])
  (tmp_path / "folder.png").mkdir()
  source = open_source(name, "all")
  assert relative(source, tmp_path) == good
  said = "ignored 6 files: 2 .psd, 1 .svg, 3 other"
  assert source.ignored == open_source(name, "all[:50%]").ignored == said
  assert sources.summary(source) == (
    f"{len(good)} images of {name} (all), no classes; {said}"
  )


SYSTEMS = ["lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"]
SYSTEMS += ["__MACOSX", ".Trash-1000", "#recycle"]


def unreadable(monkeypatch, *folders, number=errno.EACCES):
  """As for a user who may not list them; root may list all."""
  scandir = os.scandir

  def refuse(path):
    if os.path.basename(path) in folders:
      raise OSError(number, os.strerror(number), str(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)


def test_folders_of_the_system_are_no_classes_and_no_obstacle(
  tmp_path, monkeypatch
):
  """939a972 entered all of them but __MACOSX."""
  inside = [f"{folder}/x.png" for folder in SYSTEMS]
  good = ["cat/1.png", "dog/2.png"]
  name = make_folder(tmp_path, [*good, *inside, "cat/@eaDir/y.png"])
  unreadable(monkeypatch, *SYSTEMS)
  source = open_source(name, "all")
  assert source.num_classes == 2
  assert relative(source, tmp_path) == good
  assert source.ignored == ""
  splits = [f"train/{x}" for x in good + inside] + ["lost+found/z.png"]
  name = make_folder(tmp_path / "with_splits", splits)
  assert open_source(name, "train").num_classes == 2
  found = collecting.collect(str(tmp_path / "with_splits"), "train")
  assert [item.name for item in found.splits["train"]] == good


def test_split_folders_agree_on_classes(tmp_path):
  names = ["train/b/1.png", "train/d/2.png", "train/3.png", "test/a/4.png"]
  name = make_folder(tmp_path, [*names, "test/d/5.png", "test/e/notes.txt"])
  train, test = open_source(name, "train"), open_source(name, "test")
  assert train.num_classes == test.num_classes == 3
  assert labels(train) == [-1, 1, 2]
  assert labels(test) == [0, 2]
  half = open_source(name, "train[:67%]")
  assert relative(half, tmp_path) == ["train/3.png", "train/b/1.png"]


def test_unlabelled_folder(tmp_path):
  name = make_folder(tmp_path, ["train/a/1.png", "train/b/2.png"])
  name = name.replace("folder", "unlabelled", 1)
  source = open_source(name, "train")
  assert source.num_classes == 0
  assert labels(source) == [-1, -1]


def test_symbolic_links(tmp_path):
  name = make_folder(tmp_path / "data", ["a/1.png", "b/c/2.png"])
  write(tmp_path / "elsewhere/3.png")
  data = tmp_path / "data"
  (data / "a/up").symlink_to(data)
  (data / "b/c/self").symlink_to(data / "b/c/self")
  (data / "b/self.png").symlink_to(data / "b/self.png")
  (data / "b/gone.png").symlink_to(data / "nowhere.png")
  (data / "d").symlink_to(tmp_path / "elsewhere")
  (data / "e.png").symlink_to(tmp_path / "elsewhere/3.png")
  source = open_source(name, "all")
  files = ["a/1.png", "b/c/2.png", "d/3.png", "e.png"]
  assert relative(source, data) == files
  assert labels(source) == [0, 1, 2, -1]


def test_names_in_any_script(tmp_path):
  odd = os.fsdecode(b"caf\xe9 \n.png")
  name = make_folder(tmp_path, [odd, "ひ/[0].png"])
  source = cloudpickle.loads(cloudpickle.dumps(open_source(name, "all")))
  assert relative(source, tmp_path) == sorted([odd, "ひ/[0].png"])
  assert decode_image(source[0]["image"]).shape == (6, 5, 3)


def test_relative_paths(tmp_path, monkeypatch):
  make_folder(tmp_path / "images", ["a.png"])
  monkeypatch.chdir(tmp_path)
  source = open_source("folder:images", "all")
  monkeypatch.chdir("/")
  assert decode_image(source[0]["image"]).shape == (6, 5, 3)


def test_folder_mistakes(tmp_path):
  name = make_folder(tmp_path, ["train/a.png"])
  (tmp_path / "empty").mkdir()
  with pytest.raises(UsageError, match=r"split 'test'.*all.*empty, train"):
    open_source(name, "test")
  with pytest.raises(UsageError, match=r"empty holds no images.*webp"):
    open_source(name, "empty")
  with pytest.raises(UsageError, match=r"'.*nowhere' does not exist"):
    open_source(f"{name}/nowhere", "all")
  with pytest.raises(UsageError, match=r"a.png' is a file"):
    open_source(f"{name}/train/a.png", "all")
  with pytest.raises(UsageError, match="'' does not exist"):
    open_source("folder:", "all")


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(
  tmp_path, monkeypatch
):
  name = make_folder(tmp_path, ["a/1.png", "b/2.png"])
  unreadable(monkeypatch, "b")
  told = r"/b cannot be read \(Permission denied\).*Make it readable"
  with pytest.raises(UsageError, match=told):
    open_source(name, "all")
  with pytest.raises(UsageError, match=told):
    collecting.collect(str(tmp_path), "train")
  unreadable(monkeypatch, "b", number=errno.EIO)
  monkeypatch.setattr(retries, "DELAYS", (0.001,))
  for look in (
    lambda: open_source(name, "all"),
    lambda: collecting.collect(str(tmp_path), "train"),
  ):
    with pytest.raises(
      StorageError, match=r"2 times.*when the storage is back"
    ):
      look()


def test_folders_of_imagenets_size_are_cheap_to_send(tmp_path):
  files = [f"n{k // 1000:08d}/n{k // 1000:08d}_{k}.JPEG" for k in range(99_000)]
  classes = sorted({file.split("/")[0] for file in files})
  source = FolderSource("folder:x", "all", str(tmp_path), files, classes)
  assert len(cloudpickle.dumps(source)) < 40 * len(files)


def test_a_whole_folder_is_told_from_one_with_a_split_of_that_name(tmp_path):
  name = f"folder:{tmp_path}"
  assert folders.is_whole(name, "all")
  assert folders.is_whole(name, "all[:90%]")
  assert not folders.is_whole(name, "test")
  assert not folders.is_whole("digits", "all")
  (tmp_path / "all").mkdir()
  assert not folders.is_whole(name, "all")
