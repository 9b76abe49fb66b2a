"""Holds out of a set that we prepared what TFDS's order would hold out.

The paper chooses on the last 10,009 of ImageNet's training images in TFDS's
order (App. C.1). TFDS sorts a split by the MD5 hash of the split's name and of
each example's key, which is the file's name for ImageNet, and cuts it into
shards only then. So the names of all images tell the order.
"""

import functools
import hashlib
import os
import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from input_pipeline import tfds_metadata, whole_files
from input_pipeline.prepare.leaks import hashes_path

_IMAGENET_NAME = re.compile(r"n\d{8}_\d+")


def order(keys: Sequence[str], split: str) -> np.ndarray:
  """Numbers of `keys` in the order in which TFDS writes them, int [N]."""
  salted = hashlib.md5(split.encode(), usedforsecurity=False)

  def hashed(key: str) -> bytes:
    found = salted.copy()
    found.update(key.encode())
    return found.digest()

  return np.argsort(np.array([hashed(key) for key in keys], "V16"))


@functools.cache
def last(folder: str, total: int, count: int) -> np.ndarray | None:
  """Which images of ImageNet's train are among the last ones of TFDS's order.

  Images that were left out, because they could not be decoded or were there
  twice, take their places too; so `count` less those is found.

  Args:
    folder: DATA_DIR/NAME/VERSION of a prepared set.
    total: how many images the official split has.
    count: how many of them are held out.

  Returns:
    bool [N], or None if `byol prepare` did not make the set, or not of all
    images of the official split under their names.
  """
  facts = tfds_metadata.facts_of(folder, "train")
  path = hashes_path(folder, "train")
  if facts is None or not epath.Path(path).exists():
    return None
  names = [name.decode() for name in whole_files.read_arrays(path)["names"]]
  left_out = [*facts["kept"]["corrupt"], *facts["kept"]["duplicates"]]
  keys = [_key(name) for name in (*names, *(name for name, _ in left_out))]
  if len(set(keys)) != total or len(keys) != total or "" in keys:
    return None
  is_last = np.zeros(total, bool)
  is_last[order(keys, "train")[-count:]] = True
  return is_last[: len(names)]


def _key(name: str) -> str:
  """TFDS's key of an image, whatever folder or format it has here; or ""."""
  stem = os.path.splitext(os.path.basename(name))[0]
  return f"{stem}.JPEG" if _IMAGENET_NAME.fullmatch(stem) else ""
