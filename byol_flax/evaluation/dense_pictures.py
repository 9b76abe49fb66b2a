"""Draws boxes, masks, depth, curves and confusions from what was kept."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from byol_flax.evaluation import kept_pictures
from byol_flax.reports import (
  boxes,
  confusion,
  depth_maps,
  masks,
  precision_recall,
)
from input_pipeline import whole_files

Kept = Mapping[str, np.ndarray]


def pictures(folder: epath.Path) -> dict[str, Callable[[], np.ndarray]]:
  """Name of each picture that an evaluation kept the data of -> what draws it.

  Each returns uint8 [H, W, 3].
  """
  found: dict[str, Callable[[], np.ndarray]] = {}
  for kept, (picture, draw) in _PICTURES.items():
    path = folder / f"{kept}.npz"
    if path.exists():
      found[picture] = functools.partial(_drawn, draw, path)
  return found


def _drawn(draw: Callable[[Kept], np.ndarray], path: epath.Path) -> np.ndarray:
  return draw(whole_files.read_arrays(str(path)))


def _boxes(kept: Kept) -> np.ndarray:
  shown = [boxes.Boxes(*row) for row in _rows(kept, boxes.Boxes._fields)]
  return boxes.picture(shown, kept["class_names"].tolist())


def _masks(kept: Kept) -> np.ndarray:
  shown = [masks.Masks(*row) for row in _rows(kept, masks.Masks._fields)]
  return masks.picture(shown, kept["class_names"].tolist())


def _depths(kept: Kept) -> np.ndarray:
  fields = depth_maps.Depths._fields
  return depth_maps.picture(
    [depth_maps.Depths(*row) for row in _rows(kept, fields)]
  )


def _rows(kept: Kept, names: Sequence[str]) -> Iterator[tuple[np.ndarray, ...]]:
  """For each image, what was kept of it under these names."""
  columns = (kept_pictures.read_each(kept, name) for name in names)
  return zip(*columns, strict=True)


def _curves(kept: Kept) -> np.ndarray:
  rows = zip(
    kept["class_names"].tolist(),
    kept_pictures.read_each(kept, "curve"),
    kept["precision"].tolist(),
    strict=True,
  )
  return precision_recall.picture(
    {name: (*curve.T, average) for name, curve, average in rows}
  )


def _confusion(kept: Kept) -> np.ndarray:
  counts = kept["counts"]
  total = int(counts.sum())
  right = np.trace(counts) / total if total else np.nan
  return confusion.picture_of_counts(
    counts,
    kept["class_names"].tolist(),
    f"{right:.1%} of {total:,} {kept['unit']} are right",
  )


# Name of what is kept -> name of its picture, and what draws it.
_PICTURES: dict[str, tuple[str, Callable[[Kept], np.ndarray]]] = {
  kept_pictures.BOXES: (kept_pictures.BOXES, _boxes),
  kept_pictures.MASKS: (kept_pictures.MASKS, _masks),
  kept_pictures.DEPTHS: (kept_pictures.DEPTHS, _depths),
  kept_pictures.CURVES: (kept_pictures.CURVES, _curves),
  kept_pictures.COUNTS: (kept_pictures.CONFUSION, _confusion),
}
