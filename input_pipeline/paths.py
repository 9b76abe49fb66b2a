"""Makes the paths that people write absolute, once, where they come in."""

import os
import re

# Kinds of data sets whose name ends in a path: `folder:/data/pets`. In any
# other name a version of TFDS follows the colon.
FOLDERS = ("folder", "unlabelled")
# The same for boxes, masks and depth; see `dense_sources`.
DENSE_FOLDERS = ("voc", "nyu", "depth")

_VERSION = re.compile(r"[\d.*]+")  # of TFDS, whose `voc` has versions too


def absolute(path: str) -> str:
  """`path` from the root on, with `~` and `~user` expanded.

  gs://BUCKET/PATH stays, and so does "", which stands for none.
  """
  if not path or path.startswith("gs://"):
    return path
  return os.path.abspath(os.path.expanduser(path))


def of_data_set(name: str) -> str:
  """The name of a data set with its path, if it has one, made absolute."""
  kind, colon, path = name.partition(":")
  if not colon or not has_path(kind, path):
    return name
  return f"{kind}:{absolute(path)}"


def has_path(kind: str, rest: str) -> bool:
  """Whether `rest`, which follows `kind` and a colon, is a path."""
  if kind in DENSE_FOLDERS:
    return not _VERSION.fullmatch(rest)
  return kind in FOLDERS


def of_encoder(text: str) -> str:
  """The name of an encoder: a path made absolute, or random:CONFIG as it is."""
  random = text == "random" or text.startswith("random:")
  return text if random else absolute(text)


def of_split(text: str) -> str:
  """FOLDER:SPLIT with an absolute folder; a text without a colon stays."""
  folder, colon, split = text.rpartition(":")
  return f"{absolute(folder)}:{split}" if colon else text
