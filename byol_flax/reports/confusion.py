"""Which classes are taken for which others: in words, and as a picture.

Everywhere `true` is int [N], the classes of N examples, and `guess`, int [N],
what they were taken for; both from 0 to K - 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colors, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from byol_flax.reports import figures

# With more classes their names would not be legible, nor numbers in the cells.
_MOST_NAMES, _MOST_NUMBERS = 30, 15
_MOST_CELLS = 1000  # on each side, about one for each pixel


def largest(
  true: np.ndarray,
  guess: np.ndarray,
  class_names: Sequence[str],
  count: int = 10,
) -> list[dict[str, Any]]:
  """The most frequent mistakes, such as cats taken for dogs.

  Args:
    true: see above.
    guess: see above.
    class_names: of all classes.
    count: how many mistakes to name at most.

  Returns:
    "true" and "guess", names of classes; "images", how often the one was taken
    for the other; "share" of the images of the true class, in [0, 1]. Of
    equally frequent ones the first classes come first.
  """
  num_classes = len(class_names)
  wrong = true != guess
  # A whole matrix of very many classes would not fit into memory.
  pairs, images = np.unique(
    true[wrong].astype(np.int64) * num_classes + guess[wrong],
    return_counts=True,
  )
  of_class = np.bincount(true, minlength=num_classes)
  first = np.argsort(-images, kind="stable")[:count]
  return [
    {
      "true": class_names[pairs[i] // num_classes],
      "guess": class_names[pairs[i] % num_classes],
      "images": int(images[i]),
      "share": round(float(images[i] / of_class[pairs[i] // num_classes]), 4),
    }
    for i in first
  ]


def counts(
  true: np.ndarray, guess: np.ndarray, num_classes: int, most: int = _MOST_CELLS
) -> np.ndarray:
  """How many examples of each class were taken for each class.

  Args:
    true: see above.
    guess: see above.
    num_classes: K.
    most: cells on a side, P; if there are more classes, neighbouring ones share
      a cell.

  Returns:
    int [P, P], rows true and columns guessed; P is K if that is smaller.
  """
  side = min(num_classes, most)
  rows, columns = (
    x.astype(np.int64) * side // num_classes for x in (true, guess)
  )
  found = np.bincount(rows * side + columns, minlength=side * side)
  return found.reshape(side, side)


def picture(
  true: np.ndarray,
  guess: np.ndarray,
  class_names: Sequence[str],
  about: str = "",
) -> np.ndarray:
  """Draws the confusion matrix of guesses; see `picture_of_counts`.

  Args:
    true: see above.
    guess: see above.
    class_names: of all classes.
    about: what made the guesses, for the title.

  Returns:
    uint8 [H, W, 3].
  """
  right = np.mean(true == guess) if len(true) else np.nan
  title = f"{right:.1%} of {len(true):,} images are right"
  found = counts(true, guess, len(class_names))
  return picture_of_counts(
    found, class_names, title + (f" ({about})" if about else "")
  )


def picture_of_counts(
  found: np.ndarray, class_names: Sequence[str], title: str
) -> np.ndarray:
  """Draws a confusion matrix, each row as shares of its class.

  The row of a class without examples is grey. Up to 30 classes have their names
  beside the matrix. Colours rise steeply from zero, because mistakes are rare
  and could not be seen otherwise.

  Args:
    found: int [P, P], see `counts`.
    class_names: of all classes.
    title: what stands above it.

  Returns:
    uint8 [H, W, 3].
  """
  num_classes = len(class_names)
  rows = found.sum(axis=1, keepdims=True)
  shares = np.where(rows > 0, found / np.maximum(rows, 1), np.nan)
  named = num_classes <= _MOST_NAMES

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    shown = axes.imshow(
      np.ma.masked_invalid(shares),
      # Where a cell is but a pixel, a light one on black is seen best.
      cmap="Blues" if named else "inferno",
      norm=colors.PowerNorm(0.5 if named else 0.3, 0, 1),
      interpolation="nearest",
      extent=(-0.5, num_classes - 0.5, num_classes - 0.5, -0.5),
    )
    axes.set_facecolor("#cccccc")
    axes.grid(False)
    axes.set_title(title)
    axes.set_ylabel("class")
    axes.set_xlabel("taken for")
    if named:
      _name(axes, class_names)
    if num_classes <= _MOST_NUMBERS:
      _number(axes, shares)
    bar = figure.colorbar(shown, shrink=0.7, label="share of the class")
    bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1))

  side = 4 + 0.35 * num_classes if named else 12
  return figures.render((side + 1, side), draw)


def _name(axes: Axes, class_names: Sequence[str]) -> None:
  """Writes the names of the classes beside rows and columns."""
  places = range(len(class_names))
  names = [name if len(name) < 25 else f"{name[:23]}…" for name in class_names]
  axes.set_yticks(places, names)
  axes.set_xticks(places, names, rotation=90)


def _number(axes: Axes, shares: np.ndarray) -> None:
  """Writes percentages into the cells that are not empty."""
  for row, column in np.argwhere(shares > 0):
    share = shares[row, column]
    axes.text(
      column,
      row,
      f"{100 * share:.0f}" if share >= 0.01 else "<1",
      ha="center",
      va="center",
      color="white" if share > 0.3 else "black",
    )
