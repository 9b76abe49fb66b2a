"""Tells by the name of a file or folder whether it is an image or the system's.

Only the bytes tell which format an image really has; see
`decoding.decode_image`.
"""

import collections
import os

from input_pipeline.other_formats import HEIF_ADVICE, reads_heif

# Here and below, case does not matter.
_ENDINGS = (
  *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo"),
  *(".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
)
_HEIF_ENDINGS = (".heic", ".heif", ".hif")
# Endings of images that nothing here decodes; a message says how many of each
# are left out.
_OTHER_IMAGES = frozenset(
  (
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),
    *(".ai", ".eps", ".pdf", ".psd", ".svg", ".xcf"),
    *(".exr", ".hdr", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".jxr"),
    *(".pbm", ".pcx", ".pgm", ".pnm", ".ppm", ".qoi", ".tga"),
    *(".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"),
  )
)
# What file systems, network storage and desktops put beside people's files, and
# what often nobody may read. Names that begin with a dot are left alone too.
_SYSTEM_FOLDERS = frozenset(
  (
    *("lost+found", "system volume information", "__macosx", "found.000"),
    *("$recycle.bin", "#recycle", "@recycle"),
    *("@eadir", "@tmp", "#snapshot", "~snapshot", "@recently-snapshot"),
  )
)


def endings() -> str:
  """The endings of images, for messages."""
  return " ".join(_ENDINGS + (_HEIF_ENDINGS if reads_heif() else ()))


def is_image(name: str) -> bool:
  """Whether a file's name ends like that of an image that can be decoded."""
  name = name.lower()
  return name.endswith(_ENDINGS) or (
    name.endswith(_HEIF_ENDINGS) and reads_heif()
  )


def is_systems(name: str) -> bool:
  """Whether a file or folder is left alone: it is hidden or the system's."""
  return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


class Ignored:
  """Counts files that are left out because of their names.

  Files that are hidden or the system's are not counted.
  """

  def __init__(self) -> None:
    self._counts: collections.Counter[str] = collections.Counter()

  def add_link(self) -> None:
    """Counts a name of a tar file that stands for another one's content."""
    self._counts["link"] += 1

  def add(self, name: str) -> None:
    """Counts a file."""
    ending = os.path.splitext(name)[1].lower()
    known = ending in _OTHER_IMAGES or ending in _HEIF_ENDINGS
    self._counts[ending if known else "other"] += 1

  def __str__(self) -> str:
    """Says "ignored 12 files: 10 .psd, 2 .svg"; empty if there are none."""
    if not self._counts:
      return ""
    total = sum(self._counts.values())
    ranked = sorted(
      self._counts.items(), key=lambda x: (x[0] == "other", -x[1])
    )
    parts = ", ".join(f"{count:,} {ending}" for ending, count in ranked)
    text = f"ignored {total:,} file{'s' * (total > 1)}: {parts}"
    if self._counts.keys() & {*_HEIF_ENDINGS}:
      text += f" ({HEIF_ADVICE})"
    return text
