"""Features in two dimensions, coloured by class."""

from collections.abc import Sequence

import numpy as np
import threadpoolctl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from byol_flax.reports import figures

_MOST_NAMES = 20  # classes in a legend
# The usual choices (scikit-learn's guide): t-SNE on 50 principal components.
_COMPONENTS, _PERPLEXITY = 50, 30.0


def embeddings(features: np.ndarray, seed: int) -> dict[str, np.ndarray]:
  """Two embeddings of the directions of features.

  Lengths do not count, as they do not for neighbours by cosine.

  Args:
    features: float [M, F], M and F at least 4.
    seed: of t-SNE.

  Returns:
    Name -> float [M, 2].
  """
  norm = np.linalg.norm(features, axis=1, keepdims=True)
  directions = features / np.where(norm > 0, norm, 1)
  components = min(_COMPONENTS, *features.shape)
  reduced = PCA(components, random_state=seed).fit_transform(directions)
  tsne = TSNE(
    perplexity=min(_PERPLEXITY, (len(features) - 1) / 3),
    init="pca",
    random_state=seed,
  )
  # On cores that others use too its threads wait for each other much longer
  # than one thread takes.
  with threadpoolctl.threadpool_limits(1):
    found = tsne.fit_transform(reduced)
  return {"principal components": reduced[:, :2], "t-SNE": found}


def picture(
  points: dict[str, np.ndarray], label: np.ndarray, names: Sequence[str]
) -> np.ndarray:
  """Draws embeddings side by side.

  Args:
    points: name -> float [M, 2].
    label: int [M], classes from 0.
    names: of all classes; up to 20 of them get a legend.

  Returns:
    uint8 [H, W, 3].
  """
  few = len(names) <= _MOST_NAMES
  if few:
    palette = colormaps["tab10" if len(names) <= 10 else "tab20"]
    colors = palette(np.arange(len(names)))
  else:
    colors = colormaps["gist_rainbow"](np.linspace(0, 1, len(names)))
  size = 20 if len(label) < 1_000 else 6

  def draw_one(axes: Axes, title: str, xy: np.ndarray) -> None:
    axes.scatter(xy[:, 0], xy[:, 1], s=size, c=colors[label], linewidths=0)
    axes.set_title(title, pad=10)
    axes.set_xticks([])
    axes.set_yticks([])

  def draw(figure: Figure) -> None:
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, (title, xy) in zip(panels, points.items(), strict=True):
      draw_one(axes, f"{len(xy):,} test images, {title}", xy)
    if few:
      for k in np.unique(label):
        panels[-1].scatter([], [], s=20, color=colors[k], label=names[k])
      panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))

  return figures.render((7 * len(points) + 2 * few, 7), draw)
