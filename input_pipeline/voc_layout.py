"""The folders of a Pascal VOC development kit, as people have it.

`JPEGImages` holds images of any format that we decode, and the lists
`ImageSets/KIND/SPLIT.txt` name them without endings. The lists of `Main` may
have a second column, and some lists in circulation have paths.
"""

import os
from collections.abc import Container, Sequence

from input_pipeline import file_names, folders, retries
from input_pipeline.errors import UsageError

IMAGES = "JPEGImages"
ANNOTATIONS = "Annotations"
MASKS = "SegmentationClass"
_SIGNS = {"-1", "0", "1"}  # the second column: does the image have the class?


def root_of(name: str, path: str) -> str:
  """The absolute path of a development kit.

  Raises:
    UsageError: it has no folder of images.
  """
  root = os.path.abspath(path)
  if path and os.path.isdir(os.path.join(root, IMAGES)):
    return root
  inside = (
    [
      folder
      for folder in folders.subfolders(root)
      if os.path.isdir(os.path.join(root, folder, IMAGES))
    ]
    if path and os.path.isdir(root)
    else []
  )
  hint = f" Did you mean {os.path.join(root, inside[0])}?" if inside else ""
  raise UsageError(
    f"{name!r} should end in the path of a folder that holds {IMAGES}, as "
    f"VOC's development kit has it, but {path!r} holds none.{hint}"
  )


def files_by_name(folder: str, endings: Sequence[str] = ()) -> dict[str, str]:
  """Name without ending -> file, for the files of a folder.

  Args:
    folder: which may be absent, and then holds nothing.
    endings: of files that count, in small letters; none: those of images.
  """
  if not os.path.isdir(folder):
    return {}
  with folders.telling_unreadable_folders():
    files = sorted(os.listdir(folder), reverse=True)  # .jpg wins over .png
  return {
    os.path.splitext(file)[0]: file
    for file in files
    if not file_names.is_systems(file)
    and (
      file.lower().endswith(tuple(endings))
      if endings
      else file_names.is_image(file)
    )
  }


def listed(
  root: str, kind: str, split: str, known: Container[str] = ()
) -> list[str]:
  """The names in a list `ImageSets/KIND/SPLIT.txt`, each once.

  `known` is as in `read_list`.

  Raises:
    UsageError: there is no such list.
  """
  folder = os.path.join(root, "ImageSets", kind)
  file = os.path.join(folder, f"{split}.txt")
  if os.path.isfile(file):
    return read_list(file, known)
  there = sorted(files_by_name(folder, [".txt"]))
  known = f"It has {', '.join(there[:8])}" if there else "It has no list"
  raise UsageError(
    f"Split {split!r} should be listed in {file}, one name of an image a line, "
    f"but there is no such file. {known}{', …' if len(there) > 8 else ''}."
  )


def read_list(file: str, known: Container[str] = ()) -> list[str]:
  """The names in a list, each once, in its order.

  Args:
    file: its path.
    known: names of images; a line that is one of these is taken as it is, even
      if it ends like a second column, as "photo 1" does.

  Raises:
    UsageError: the list cannot be read.
    OSError: the storage is at fault.
  """
  try:
    with open(file, encoding="utf-8-sig") as lines:
      names = [_name(line.strip(), known) for line in lines if line.strip()]
  except (OSError, UnicodeDecodeError) as error:
    if retries.fault_of(error) is retries.Fault.STORAGE:
      raise
    raise UsageError(
      f"The list of images {file} cannot be read ({error}); expected a text "
      "file with one name a line."
    ) from None
  return [*dict.fromkeys(names)]


def _name(line: str, known: Container[str]) -> str:
  """The image's name in a line of a list."""
  if line in known:
    return line
  name, _, sign = line.rpartition(" ")
  if sign in _SIGNS and name.strip():
    line = name.strip()
  if f"{IMAGES}/" in line:  # "/JPEGImages/a.jpg /SegmentationClassAug/a.png"
    line = os.path.basename(line.partition(f"{IMAGES}/")[2].split()[0])
  return os.path.splitext(line)[0] if file_names.is_image(line) else line
