"""Reads any folder of images as a random-access source."""

import contextlib
import errno
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import file_names, paths, retries
from input_pipeline.errors import UsageError


class FolderSource:
  """The image files below one folder, in sorted order; see `sources.Source`.

  `ignored` says which files were left out; it is empty if none were.

  The label of a file is the position of its top folder in `classes`; a file
  outside of these folders has none (-1).
  """

  def __init__(
    self,
    name: str,
    split: str,
    root: str,
    files: list[str],
    classes: list[str],
    ignored: str = "",
    began_with: Mapping[str, int] | None = None,
  ) -> None:
    """Takes `files` relative to `root`; reads none of them.

    `began_with` gives the sizes in bytes that some files had when a run began;
    these count instead of today's.
    """
    self.name = name
    self.ignored = ignored
    self.split = split
    self.num_classes = len(classes)
    self.class_names = tuple(classes)
    self._began_with = began_with or {}
    number = {folder: i for i, folder in enumerate(classes)}
    self._root = root
    # These are arrays because it takes seconds to send ImageNet's file names to
    # a worker as a list.
    self._files = np.array([os.fsencode(file) for file in files])
    self._labels = np.array(
      [number.get(_top_folder(file), -1) for file in files], np.int32
    )

  @property
  def fingerprint(self) -> str:
    """Digest of names and sizes; a million files take seconds."""
    digest = hashlib.blake2b(digest_size=16)
    for file, size in zip(self._files, self._sizes, strict=True):
      digest.update(b"%b\0%d\n" % (bytes(file), size))
    return digest.hexdigest()

  @functools.cached_property
  def _sizes(self) -> np.ndarray:
    """Bytes of every file at the first call, int64; -1 if it is absent."""
    return retries.patiently(self._look_up_sizes, f"the images of {self.name}")

  def _look_up_sizes(self) -> np.ndarray:
    sizes = np.full(len(self), -1, np.int64)
    for i in range(len(self)):
      if (before := self._began_with.get(self._relative(i))) is not None:
        sizes[i] = before
        continue
      try:
        sizes[i] = os.path.getsize(self.example_name(i))
      except OSError as error:
        if retries.fault_of(error) is not retries.Fault.FILE:
          raise
    return sizes

  def __getstate__(self) -> dict[str, Any]:
    """Leaves out the sizes, which no worker needs."""
    return {k: v for k, v in self.__dict__.items() if k != "_sizes"}

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, i: int) -> dict[str, Any]:
    image = read_below(self._root, self.example_name(i))
    return {"image": image, "label": self._labels[i]}

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Does nothing: each image is a file of its own."""

  def example_name(self, i: int) -> str:
    """The path of file `i`."""
    return os.path.join(self._root, self._relative(i))

  def file_name(self, i: int) -> str:
    """The last part of the path."""
    return os.path.basename(self.example_name(i))

  def file_of(self, i: int) -> tuple[str, int]:
    """Path below the split's folder, and the size that counts, in bytes."""
    return self._relative(i), int(self._sizes[i])

  def unlabelled(self) -> np.ndarray:
    """Numbers of the files that lie outside the folders of classes."""
    return np.flatnonzero(self._labels < 0)

  def _relative(self, i: int) -> str:
    return os.fsdecode(bytes(self._files[i]))


def read_below(root: str, path: str) -> bytes:
  """All bytes of a file in a data set's folder `root`.

  Raises:
    OSError: the file cannot be read. It is ESTALE, an error of the storage, if
      the whole folder is gone: its mount went away, and may come back.
  """
  try:
    with retries.naming(path), open(path, "rb") as file:
      return file.read()
  except FileNotFoundError:
    if os.path.isdir(root):
      raise
    number = errno.ESTALE
    raise OSError(number, os.strerror(number), root) from None


def open_folder(
  name: str,
  path: str,
  split: str,
  labelled: bool,
  began_with: Mapping[str, int] | None = None,
) -> FolderSource:
  """Lists the images of one split of a folder.

  Args:
    name: what the source shall be called.
    path: the folder. Its subfolder `split` is the split; without one, `all`
      stands for the whole folder.
    split: name of the split.
    labelled: whether top folders are classes. If there are folders of splits,
      their classes are put together, so that every split numbers them alike.
    began_with: see `sources.open_source`.

  Raises:
    UsageError: the folder or the split does not exist, cannot be listed, or
      holds no images.
  """
  folder = os.path.abspath(path)
  if not path or not os.path.isdir(folder):
    found = "is a file" if path and os.path.exists(folder) else "does not exist"
    raise UsageError(
      f"{name!r} should end in the path of a folder of images, but "
      f"{path!r} {found}."
    )
  ignored = file_names.Ignored()
  with telling_unreadable_folders():
    root = os.path.join(folder, split)
    if os.path.isdir(root):
      splits = [os.path.join(folder, name) for name in subfolders(folder)]
    elif split == "all":
      root, splits = folder, [folder]
    else:
      others = subfolders(folder)
      more = ", ..." if len(others) > 8 else ""
      raise UsageError(
        f"{folder} has no subfolder for split {split!r}; the splits to choose "
        f"from are all (the whole folder) and: {', '.join(others[:8])}{more}."
      )
    files = sorted({*image_files(root, ignored), *(began_with or {})})
    classes = _classes(splits, began_with or {}) if labelled else []
  if not files:
    raise UsageError(f"{root} holds no images: {no_images(ignored)}")
  return FolderSource(
    name, split, root, files, classes, str(ignored), began_with
  )


def no_images(ignored: file_names.Ignored) -> str:
  """Says why there are no images, as the rest of a sentence."""
  came = f"; {ignored}" if str(ignored) else ""
  return f"no file in it ends in one of {file_names.endings()}{came}."


@contextlib.contextmanager
def telling_unreadable_folders() -> Iterator[None]:
  """Turns the system's errors about folders and files into a sentence.

  Errors of the storage pass through to `retries.patiently`.

  Raises:
    UsageError: the user may not read one of them, or it is gone.
  """
  try:
    yield
  except OSError as error:
    if retries.fault_of(error) is retries.Fault.STORAGE:
      raise
    raise UsageError(
      f"{error.filename} cannot be read ({error.strerror}), and there may be "
      "images in it. Make it readable, such as with chmod -R u+rX, or move it "
      "away."
    ) from error


def _classes(splits: list[str], others: Iterable[str]) -> list[str]:
  """Sorted names of the folders in `splits` that hold, or held, an image."""
  return sorted(
    {top for file in others if (top := _top_folder(file))}
    | {
      folder
      for split in splits
      for folder in subfolders(split)
      if any(image_files(os.path.join(split, folder), file_names.Ignored()))
    }
  )


def is_whole(name: str, split: str) -> bool:
  """Whether a split, or the one it is a slice of, is a whole `folder:PATH`."""
  kind, _, path = name.partition(":")
  if kind not in paths.FOLDERS or split.partition("[")[0] != "all":
    return False
  return not os.path.isdir(os.path.join(path, "all"))


def image_files(root: str, ignored: file_names.Ignored) -> Iterator[str]:
  """Yields the image files below `root`, relative to it, in no fixed order.

  The system's folders are not entered; other files are counted in `ignored`.

  Raises:
    OSError: a folder cannot be listed.
  """
  pending: list[tuple[str, frozenset]] = [("", frozenset())]
  while pending:
    folder, above = pending.pop()
    status = os.stat(os.path.join(root, folder))
    identity = (status.st_dev, status.st_ino)
    if identity in above:  # a symbolic link led back to a folder above
      continue
    with os.scandir(os.path.join(root, folder)) as entries:
      for entry in entries:
        path = os.path.join(folder, entry.name)
        if file_names.is_systems(entry.name):
          continue
        if _is_folder(entry):
          pending.append((path, above | {identity}))
        elif not os.path.isfile(entry.path):
          continue
        elif file_names.is_image(entry.name):
          yield path
        else:
          ignored.add(entry.name)


def subfolders(folder: str) -> list[str]:
  """Names of the folders in `folder`, sorted, without the system's."""
  with os.scandir(folder) as entries:
    return sorted(
      entry.name
      for entry in entries
      if not file_names.is_systems(entry.name) and _is_folder(entry)
    )


def _is_folder(entry: os.DirEntry) -> bool:
  # `DirEntry.is_dir` saves a system call, but raises for a link to itself.
  return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _top_folder(file: str) -> str:
  """The first folder of a relative path, "" for a file without one."""
  return file.split(os.sep, 1)[0] if os.sep in file else ""
