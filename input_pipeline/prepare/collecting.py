"""Finds the images to be prepared: in folders, lists of files or tar files.

Nothing is unpacked: an image is a stretch of a file. In ImageNet's tar file,
which holds tar files, it is a stretch of a stretch.
"""

import io
import itertools
import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from input_pipeline import retries
from input_pipeline.errors import UsageError
from input_pipeline.file_names import Ignored, is_image, is_systems
from input_pipeline.folders import (
  image_files,
  no_images,
  subfolders,
  telling_unreadable_folders,
)

# Subfolders that are splits, and what the splits are called.
_SPLITS = {
  "train": "train",
  "test": "test",
  "val": "validation",
  "valid": "validation",
  "validation": "validation",
}

_TOLD = 3  # how many images a message names

_ESCAPES = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r"})


class Item(NamedTuple):
  """One image to be prepared.

  Attributes:
    name: unique within its split, the same wherever the source lies.
    class_name: None if it has none.
    path: of the file in which it lies.
    offset: of its first byte.
    size: in bytes.
  """

  name: str
  class_name: str | None
  path: str
  offset: int
  size: int

  def read(self) -> bytes:
    """The bytes of the image file.

    Raises:
      UnreadableError: the file is at fault.
      StorageError: for a minute nothing could be read.
    """
    return retries.patiently(self._read, self.path)

  def _read(self) -> bytes:
    with retries.naming(self.path), open(self.path, "rb") as file:
      file.seek(self.offset)
      data = file.read(self.size)
    if len(data) != self.size:
      raise OSError(f"{self.path} is shorter than it was")
    return data


class Collected(NamedTuple):
  """What a source holds.

  Attributes:
    splits: the images of each split, in the order of their names.
    ignored: what was left out, in words; empty if nothing was.
  """

  splits: dict[str, list[Item]]
  ignored: str


def collect(source: str, split: str) -> Collected:
  """Lists the images of a source, by split, in the order of their names.

  Args:
    source: a folder, a list of files or a tar file. In a folder, subfolders
      called train, test, val, valid or validation are splits, and top folders
      are classes. A list (.txt or .tsv) has one path a line, relative to the
      list, and may have a class after a tab. In a tar file, folders or inner
      tar files are classes.
    split: what to call the images of a source without splits.

  Raises:
    UsageError: there is nothing to prepare.
    StorageError: for a minute nothing could be read.
  """
  return retries.patiently(lambda: _collect(source, split), source)


def _collect(source: str, split: str) -> Collected:
  path = os.path.abspath(source)
  if not source or not os.path.exists(path):
    raise UsageError(
      f"There is no {source!r}; give a folder of images, a list of files "
      "(.txt, .tsv) or a tar file."
    )
  ignored = Ignored()
  with telling_unreadable_folders():
    if os.path.isdir(path):
      found = _of_folder(path, split, ignored)
    elif path.endswith((".txt", ".tsv")):
      found = {split: list(_of_list(path))}
    elif path.lower().endswith(".tar"):
      with open(path, "rb") as file:
        whole = _Part(file, 0, os.path.getsize(path))
        found = {split: list(_of_tar(path, whole, "", ignored))}
    else:
      raise UsageError(
        f"{source} is no folder, no list of files (.txt, .tsv) and no tar file "
        "(.tar). In a compressed tar file no image can be read by itself: "
        "unpack it to a plain one, such as with gunzip."
      )
  for name, items in found.items():
    if not items:
      raise UsageError(
        f"Split {name} of {source} holds no images: {no_images(ignored)}"
      )
    items.sort()
  _check(source, found)
  return Collected(found, str(ignored))


def _check(source: str, splits: dict[str, list[Item]]) -> None:
  """Checks that names are unique, and that all images have classes or none.

  Reports tell images apart by their names.
  """
  for items in splits.values():
    for before, after in itertools.pairwise(items):
      if before.name == after.name:
        raise UsageError(
          f"{source} has two images that are called {after.name}; rename one."
        )
  every = [item for items in splits.values() for item in items]
  without = [
    f"{split}: {item.name}"
    for split, items in splits.items()
    for item in items
    if item.class_name is None
  ]
  if len(without) not in (0, len(every)):
    more = ", ..." if len(without) > _TOLD else ""
    raise UsageError(
      f"{len(every) - len(without)} of {len(every)} images of {source} have a "
      "class: either all images lie in folders of classes (or have one in the "
      "list), or none. These have none: "
      f"{', '.join(without[:_TOLD])}{more}"
    )


def _of_folder(
  root: str, split: str, ignored: Ignored
) -> dict[str, list[Item]]:
  splits = {name: _SPLITS[name] for name in subfolders(root) if name in _SPLITS}
  if not splits:
    return {split: list(_below(root, ignored))}
  if len(set(splits.values())) < len(splits):
    raise UsageError(
      f"{root} has {', '.join(splits)}, of which two are the same split; "
      "rename one."
    )
  places = {name.partition(os.sep)[0] for name in image_files(root, Ignored())}
  if strays := sorted(map(_readable, places - {*splits})):
    raise UsageError(
      f"{root} has folders of splits ({', '.join(splits)}) and beside them "
      f"images in {', '.join(strays[:5])}, which belong to no split. Move them "
      "away; or, if all these folders are classes, put them into a new folder "
      "train."
    )
  return {
    called: list(_below(os.path.join(root, name), ignored))
    for name, called in splits.items()
  }


def _below(root: str, ignored: Ignored) -> Iterator[Item]:
  for name in image_files(root, ignored):
    folder, inside, _ = name.partition(os.sep)
    path = os.path.join(root, name)
    yield Item(
      name=_readable(name.replace(os.sep, "/")),
      class_name=_readable(folder) if inside else None,
      path=path,
      offset=0,
      size=os.path.getsize(path),
    )


def _of_list(path: str) -> Iterator[Item]:
  folder = os.path.dirname(path)
  with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
    for number, line in enumerate(file, 1):
      name, tab, class_name = line.rstrip("\r\n").partition("\t")
      if not name:
        continue
      if tab and (not class_name.strip() or "\t" in class_name):
        raise UsageError(
          f"Line {number} of {path} should be a path, or a path, a tab and a "
          f"class; after the tab comes {class_name!r}."
        )
      where = os.path.join(folder, os.path.expanduser(name))
      if not os.path.isfile(where):
        raise UsageError(
          f"Line {number} of {path} names {name}, which does not exist. Paths "
          "are relative to the list; a class follows after a tab."
        )
      yield Item(
        name=_readable(name),
        class_name=_readable(class_name) if tab else None,
        path=where,
        offset=0,
        size=os.path.getsize(where),
      )


def _of_tar(
  path: str, part: "_Part", prefix: str, ignored: Ignored
) -> Iterator[Item]:
  """Images of a tar file that is part of the file at `path`."""
  for member in _members(path, part, prefix):
    name = member.name.removeprefix("./")
    # Skips hidden files, such as Finder's, and paths that lead out by "..".
    if any(map(is_systems, name.split("/"))):
      continue
    if (member.islnk() or member.issym()) and is_image(name):
      ignored.add_link()
    if not member.isfile():
      continue
    content = part.within(member.offset_data, member.size)
    if name.endswith(".tar"):
      inner = f"{prefix}{name.removesuffix('.tar')}/"
      yield from _of_tar(path, content, inner, ignored)
    elif is_image(name):
      full = _readable(prefix + name)
      folder, inside, _ = full.partition("/")
      class_name = folder if inside else None
      yield Item(full, class_name, path, content.start, member.size)
    else:
      ignored.add(name)


def _members(
  path: str, part: "_Part", prefix: str
) -> Iterator[tarfile.TarInfo]:
  """What is in a tar file; a damaged one is refused.

  By itself tarfile takes damage for the end of the archive.
  """
  where = f"{prefix.removesuffix('/')} in {path}" if prefix else path
  try:
    archive = tarfile.open(fileobj=part, mode="r:")  # noqa: SIM115
    yield from archive
    part.seek(archive.offset)
    whole = part.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
  except tarfile.TarError as error:
    raise UsageError(f"{where} is no whole tar file: {error}.") from None
  if not whole:
    raise UsageError(
      f"{where} is cut off or damaged at its byte {archive.offset:,}: there "
      "should be the next file or the end of the archive. Download it again."
    )


def _readable(name: str) -> str:
  """A file's name that fits into a line of UTF-8, whatever its bytes are."""
  text = os.fsencode(name).decode("utf-8", "backslashreplace")
  return text.translate(_ESCAPES)


class _Part(io.RawIOBase):
  """A stretch of an open file that can be read like a file."""

  def __init__(self, file: io.BufferedReader, start: int, size: int) -> None:
    self.start = start  # within the file
    self._file, self._size = file, size
    self._position = 0

  def within(self, offset: int, size: int) -> "_Part":
    """A stretch of this stretch."""
    return _Part(self._file, self.start + offset, size)

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._position

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
    self._position = offset + origin.get(whence, self._size)
    return self._position

  def read(self, size: int = -1) -> bytes:
    left = max(0, self._size - self._position)
    self._file.seek(self.start + self._position)
    data = self._file.read(left if size < 0 else min(size, left))
    self._position += len(data)
    return data


def with_labels(items: list[Item], labels: str) -> list[Item]:
  """Gives images their classes from a file of ground truth.

  Args:
    items: in the order of their names.
    labels: a text file with one class a line, in that order; or ImageNet's
      development kit, ILSVRC2012_devkit_t12.tar.gz.

  Raises:
    UsageError: there are not as many classes as images.
  """
  try:
    if labels.endswith((".tar.gz", ".tgz", ".tar")):
      names = _of_development_kit(labels)
    else:
      with open(labels, encoding="utf-8-sig") as file:
        names = [line.strip() for line in file if line.strip()]
  except KeyError as error:
    raise UsageError(
      f"{labels} is not ImageNet's development kit: it has no {error}."
    ) from None
  except (OSError, EOFError, ValueError, tarfile.TarError) as error:
    raise UsageError(f"Cannot read classes from {labels}: {error}.") from None
  if len(names) != len(items):
    raise UsageError(
      f"{labels} has {len(names)} classes for {len(items)} images; there must "
      "be one for each image, in the order of the images' names."
    )
  return [
    item._replace(class_name=name)
    for item, name in zip(items, names, strict=True)
  ]


def _of_development_kit(path: str) -> list[str]:
  """WordNet identifiers of ImageNet's validation images, in their order."""
  from scipy import io as scipy_io
  from scipy.io.matlab import MatReadError

  with tarfile.open(path) as archive:
    members = {os.path.basename(m.name): m for m in archive if m.isfile()}

    def content(name: str) -> bytes:
      file = archive.extractfile(members[name])
      return file.read() if file else b""

    truth = content("ILSVRC2012_validation_ground_truth.txt")
    try:
      synsets = scipy_io.loadmat(
        io.BytesIO(content("meta.mat")), squeeze_me=True, struct_as_record=True
      )["synsets"]
    except MatReadError as error:
      raise ValueError(f"meta.mat: {error}") from None
  numbers = [int(word) for word in truth.split()]
  names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
  return [names[number] for number in numbers]
