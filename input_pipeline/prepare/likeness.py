"""Tells which images are the same: to the byte, or to the eye.

The hash of an image's look says where on a grid of 9 × 9 the image grows
brighter from left to right and from top to bottom. Scaling, recompression and
small changes of colour turn few of its 128 bits; two different photographs
differ in about half of them.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

_GRID = 9
CLOSE = 10  # of 128 bits; two images that look alike differ in no more
# With less contrast images cannot be told apart: all skies look alike.
_LEAST_CONTRAST = 3.0
_QUERIES, _BANK = 256, 65_536


def content_hash(data: bytes) -> np.ndarray:
  """Hash of a file's bytes, uint64 [2]."""
  digest = hashlib.blake2b(data, digest_size=16).digest()
  return np.frombuffer(digest, np.uint64)


def look_hash(image: np.ndarray) -> np.ndarray:
  """Hash of the look of uint8 [H, W, 3], uint64 [2]; zeros if it is flat."""
  gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  grid = cv2.resize(gray, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
  grid = grid.astype(np.int16)
  if grid.std() < _LEAST_CONTRAST:
    return np.zeros(2, np.uint64)
  across = grid[:-1, 1:] > grid[:-1, :-1]
  down = grid[1:, :-1] > grid[:-1, :-1]
  bits = np.packbits(np.stack([across, down]).reshape(2, -1), axis=1)
  return bits.view(np.uint64).ravel()


class Pair(NamedTuple):
  """Two images that are alike.

  Attributes:
    ours: number of the first.
    theirs: number of the second.
    distance: bits in which their looks differ; -1 if their bytes are equal.
  """

  ours: int
  theirs: int
  distance: int


class Hashes(NamedTuple):
  """`content_hash` and `look_hash` of N images, uint64 [N, 2] each."""

  content: np.ndarray
  look: np.ndarray


def duplicates(content: np.ndarray) -> list[tuple[int, int]]:
  """(index, first) for every row of uint64 [N, 2] that occurred before."""
  _, first, inverse = np.unique(
    content, axis=0, return_index=True, return_inverse=True
  )
  earliest = first[inverse.ravel()]
  return [
    (int(i), int(earliest[i]))
    for i in np.flatnonzero(earliest != np.arange(len(content)))
  ]


def common(
  ours: Hashes,
  theirs: Hashes,
  tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Pair]:
  """Images of `ours` that occur in `theirs`, each with its closest likeness.

  All pairs are compared, without an index: fifty thousand images against a
  million take minutes.
  """
  known = {tuple(row): i for i, row in enumerate(theirs.content.tolist())}
  pairs = [
    Pair(i, known[tuple(row)], -1)
    for i, row in enumerate(ours.content.tolist())
    if tuple(row) in known
  ]
  same = {pair.ours for pair in pairs}
  for start in range(0, len(ours.look), _QUERIES):
    tell(start, len(ours.look))
    queries = ours.look[start : start + _QUERIES]
    best = np.full(len(queries), 255, np.uint8)
    where = np.zeros(len(queries), np.int64)
    for first in range(0, len(theirs.look), _BANK):
      distance = _distances(queries, theirs.look[first : first + _BANK])
      nearest = distance.argmin(axis=1)
      found = distance[np.arange(len(queries)), nearest]
      closer = found < best
      best[closer], where[closer] = found[closer], first + nearest[closer]
    pairs += [
      Pair(start + int(i), int(where[i]), int(best[i]))
      for i in np.flatnonzero((best <= CLOSE) & queries.any(axis=1))
      if start + int(i) not in same
    ]
  return sorted(pairs)


def _distances(queries: np.ndarray, bank: np.ndarray) -> np.ndarray:
  """In how many bits uint64 [Q, 2] and [N, 2] differ, uint8 [Q, N]."""
  total = np.zeros((len(queries), len(bank)), np.uint8)
  for half in range(2):
    total += np.bitwise_count(queries[:, None, half] ^ bank[None, :, half])
  flat = ~bank.any(axis=1)
  total[:, flat] = 255
  return total
