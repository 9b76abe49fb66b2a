"""What the pictures of an evaluation need, kept while a protocol has it.

Each function writes an .npz file in the folder of the evaluation, from which
`illustrations` draws after the result. What belongs to one image has the name
of its field in `reports`, such as that of `boxes.Boxes`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from byol_flax.evaluation import place
from byol_flax.reports import confusion
from input_pipeline import whole_files
from input_pipeline.errors import RunError

# Names of what is kept, and of pictures.
NEIGHBOURS, PROJECTION = "neighbours", "projection"
GUESSES, CONFUSION = "guesses", "confusion"
BOXES, MASKS, DEPTHS = "boxes", "masks", "depths"
COUNTS, CURVES = "confusion-counts", "precision-recall"
TENSORBOARD = "tensorboard"  # the folder of an evaluation's
# Points of a curve: more could not be told apart in a picture.
_MOST_POINTS = 1000

# One array for each image; or one array, with the images along its first axis.
Each = Sequence[np.ndarray] | np.ndarray


@contextlib.contextmanager
def spared(what: str, tell: Callable[[str], None]) -> Iterator[None]:
  """Tells what fails within, and goes on: no picture may cost a result."""
  try:
    yield
  except Exception as error:
    tell(f"{what} is left out: {type(error).__name__}: {error}")


def wanted(workdir: str) -> bool:
  """Whether pictures are made here: in the folder of an evaluation only.

  An evaluation that leaves its summary in the folder of a run draws nothing
  there, because the next checkpoint's would take the place of its pictures.
  """
  return epath.Path(workdir, place.IDENTITY).exists()


def keep_guesses(
  workdir: str,
  name: str,
  true: np.ndarray,
  guess: np.ndarray,
  class_names: Sequence[str],
  about: str = "",
) -> list[dict[str, Any]]:
  """Keeps guesses on test for the picture of the confusion matrix.

  Every process calls this; process 0 writes.

  Args:
    workdir: of the evaluation.
    name: of the row that the guesses are of; "" if there is only one.
    true: int [N]; rows with -1 do not count.
    guess: int [N]; -1 where logits were not finite, see
      `linear_heads.best_of`.
    class_names: of all classes.
    about: what made the guesses, for the title.

  Returns:
    The most frequent mistakes, see `confusion.largest`.

  Raises:
    RunError: some of the logits were not finite.
  """
  known = true >= 0
  true, guess = true[known].astype(np.int32), guess[known].astype(np.int32)
  if (guess < 0).any():
    raise RunError(
      f"The classifier{f' of {name}' * bool(name)} has diverged: its logits "
      "are not finite numbers. Give a lower learning rate and another "
      "--workdir, or evaluate another checkpoint."
    )
  if _writes(workdir):
    end = f"-{name}" if name else ""
    keep(
      workdir,
      f"{GUESSES}{end}",
      {
        "true": true,
        "guess": guess,
        "class_names": np.array(class_names),
        "about": np.array(about),
      },
      picture=f"{CONFUSION}{end}",
    )
  return confusion.largest(true, guess, class_names)


def keep(
  workdir: str, name: str, arrays: dict[str, np.ndarray], *, picture: str
) -> None:
  """Writes `name.npz`, and removes a picture of what was there before."""
  forget(workdir, picture)
  whole_files.write_arrays(epath.Path(workdir, f"{name}.npz"), arrays)


def forget(workdir: str, picture: str) -> None:
  """Removes a picture, because what it shows is about to be written anew."""
  epath.Path(workdir, f"{picture}.png").unlink(missing_ok=True)


def spread(count: int, most: int) -> np.ndarray:
  """Numbers of at most `most` of `count` things, spread evenly, int [n].

  Neighbours, such as images of a film, may be very much alike. The first and
  the last thing are among two or more.
  """
  return np.unique(
    np.linspace(0, max(count - 1, 0), min(count, most)).astype(int)
  )


class FirstRows:
  """The first images that process 0 reads of a split, with what goes along."""

  def __init__(self, most: int) -> None:
    """Takes how many are wanted: `config.pictures`."""
    self._left = most if jax.process_index() == 0 else 0
    self._rows: dict[str, list[np.ndarray]] = {}

  @property
  def wanted(self) -> bool:
    """Whether this process still wants rows."""
    return self._left > 0

  def add(self, mask: np.ndarray, **rows: np.ndarray) -> None:
    """Takes the rows of a batch that count, as far as they are wanted.

    Args:
      mask: bool [B], the rows that count.
      **rows: name -> [B, ...], this process's part; every batch has the same
        names, but may have other shapes.
    """
    chosen = np.flatnonzero(mask)[: self._left]
    self._left -= len(chosen)
    for name, values in rows.items():
      # Copies, so that no row keeps its whole batch in memory.
      self._rows.setdefault(name, []).extend(values[i].copy() for i in chosen)

  @property
  def rows(self) -> dict[str, list[np.ndarray]]:
    """Name -> one array for each image."""
    return self._rows


def keep_boxes(
  workdir: str,
  images: Each,
  sizes: Each,
  boxes: Each,
  label: Each,
  difficult: Each,
  found_boxes: Each,
  found_scores: Each,
  found_label: Each,
  class_names: Sequence[str],
) -> None:
  """Keeps images with true and found boxes, for `reports.boxes`.

  Every process may call this; process 0 writes. Each argument but the last has
  an entry for each of N images; boxes are float (x_min, y_min, x_max, y_max) in
  pixels of `images`.

  Args:
    workdir: of the evaluation.
    images: uint8 [H, W, 3].
    sizes: int [2], the height and width that hold the image; the rest of
      `images` is padding.
    boxes: float [M, 4], the true ones.
    label: int [M], their classes; -1 pads.
    difficult: bool [M].
    found_boxes: float [D, 4].
    found_scores: float [D], in [0, 1].
    found_label: int [D], classes; -1 pads.
    class_names: of all classes.
  """
  if not (_writes(workdir) and len(images)):
    return
  cut = [x[: size[0], : size[1]] for x, size in zip(images, sizes, strict=True)]
  true = [np.asarray(one) >= 0 for one in label]
  found = [np.asarray(one) >= 0 for one in found_label]
  keep(
    workdir,
    BOXES,
    {
      **_each("image", cut),
      **_each("boxes", _where(boxes, true)),
      **_each("label", _where(label, true)),
      **_each("difficult", _where(difficult, true)),
      **_each("found_boxes", _where(found_boxes, found)),
      **_each("found_scores", _where(found_scores, found)),
      **_each("found_label", _where(found_label, found)),
      "class_names": np.array(class_names),
    },
    picture=BOXES,
  )


def keep_classes(
  workdir: str,
  images: Each,
  classes: Each,
  found: Each,
  class_names: Sequence[str],
  confusion: np.ndarray,
) -> None:
  """Keeps images with true and found masks, for `reports.masks`.

  Every process may call this; process 0 writes. The first three have an entry
  for each of N images.

  Args:
    workdir: of the evaluation.
    images: uint8 [H, W, 3].
    classes: uint8 [H, W], the true ones; 255 is void.
    found: the same of the network; void pixels may have any class.
    class_names: of all K classes.
    confusion: int [K, K], pixels of the whole split, rows true and columns
      found.
  """
  if _writes(workdir) and len(images):
    keep(
      workdir,
      MASKS,
      {
        **_each("image", images),
        **_each("classes", classes),
        **_each("found", found),
        "class_names": np.array(class_names),
      },
      picture=MASKS,
    )
  keep_confusion(workdir, confusion, class_names, "pixels")


def keep_depths(workdir: str, images: Each, depths: Each, found: Each) -> None:
  """Keeps images with true and found depth, for `reports.depth_maps`.

  Every process may call this; process 0 writes. Each argument has an entry for
  each of N images.

  Args:
    workdir: of the evaluation.
    images: uint8 [H, W, 3].
    depths: float [h, w], metres; 0 is not valid.
    found: float [h, w], metres, of the same pixels.
  """
  if _writes(workdir) and len(images):
    keep(
      workdir,
      DEPTHS,
      {
        **_each("image", images),
        **_each("depth", depths),
        **_each("found", found),
      },
      picture=DEPTHS,
    )


def keep_curves(
  workdir: str,
  curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]],
) -> None:
  """Keeps a curve of each class, for `reports.precision_recall`.

  Every process may call this; process 0 writes.

  Args:
    workdir: of the evaluation.
    curves: name of a class -> recall [n], rising, and precision [n], after each
      detection by falling score, at IoU 0.5; and the average precision, NaN for
      a class without true boxes. Long curves are thinned out.
  """
  if not _writes(workdir):
    return
  thinned = [
    np.stack([recall, precision], axis=1)[spread(len(recall), _MOST_POINTS)]
    for recall, precision, _ in curves.values()
  ]
  keep(
    workdir,
    CURVES,
    {
      **_each("curve", thinned),
      "precision": np.array([ap for _, _, ap in curves.values()]),
      "class_names": np.array(list(curves)),
    },
    picture=CURVES,
  )


def keep_confusion(
  workdir: str, counts: np.ndarray, class_names: Sequence[str], unit: str
) -> None:
  """Keeps how often each class was taken for each, for `reports.confusion`.

  Every process may call this; process 0 writes.

  Args:
    workdir: of the evaluation.
    counts: int [K, K], rows true and columns found.
    class_names: of all rows.
    unit: what was counted, such as "pixels".
  """
  if _writes(workdir):
    keep(
      workdir,
      COUNTS,
      {
        "counts": counts,
        "class_names": np.array(class_names),
        "unit": np.array(unit),
      },
      picture=CONFUSION,
    )


def read_each(kept: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
  """What was kept under a name for each image, in order."""
  count = sum(key.startswith(f"{name}/") for key in kept)
  return [kept[f"{name}/{i}"] for i in range(count)]


def _each(name: str, arrays: Each) -> dict[str, np.ndarray]:
  """Arrays of any shapes under names of their own."""
  return {f"{name}/{i}": np.asarray(x) for i, x in enumerate(arrays)}


def _where(arrays: Each, masks: list[np.ndarray]) -> list[np.ndarray]:
  """Of each array the rows that its mask names."""
  return [np.asarray(x)[m] for x, m in zip(arrays, masks, strict=True)]


def _writes(workdir: str) -> bool:
  """Whether this process keeps what pictures need, here."""
  return jax.process_index() == 0 and wanted(workdir)
