"""The pictures of an evaluation, made of what lies in its folder.

A protocol keeps what they need while it has it. They are drawn after the result
has been written, by process 0 alone, and again if they are missing.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from byol_flax.evaluation import dense_pictures, place
from byol_flax.evaluation.kept_pictures import (
  CONFUSION,
  GUESSES,
  NEIGHBOURS,
  PROJECTION,
  TENSORBOARD,
  spared,
)
from byol_flax.reports import (
  cells,
  charts,
  confusion,
  neighbour_sheet,
  paper,
  png,
  projection,
  projector,
)
from byol_flax.reports import suite as suite_report
from byol_flax.runs import tensorboard_files
from input_pipeline import whole_files

_EFFICIENCY = "label-efficiency"
_SEED = 0  # of t-SNE
# Protocols that do not give each test image one class.
_WITHOUT_CLASS = ("few_label", "segmentation", "detection", "depth")
# The paper's numbers by share of the labels: table and column.
_THEIRS = {
  0.01: ("2", "1 %, top-1"),
  0.1: ("2", "10 %, top-1"),
  1.0: ("8", "top-1"),
}

Tell = Callable[[str], None]
Result = Mapping[str, Any]
Make = Callable[[], np.ndarray]


def draw(workdir: str, tell: Tell) -> None:
  """Draws the pictures of a finished evaluation, unless all are there.

  They go to `NAME.png` in its folder and to its TensorBoard. Process 0 alone
  calls this. What cannot be drawn is told, and is no error.
  """
  folder = epath.Path(workdir)
  with spared("The pictures' list", tell):
    result = json.loads((folder / place.RESULT).read_text())
    pictures = _pictures(folder, result)
    missing = {
      name for name in pictures if not (folder / f"{name}.png").exists()
    }
    if _classifies(result) and not any(
      name.startswith(CONFUSION) for name in pictures
    ):
      tell(
        "No confusion matrix is drawn: an older version made this result and "
        "did not keep its guesses."
      )
    if missing:
      _draw(folder, pictures, missing, tell)


def draw_of_suite(
  workdir: str, results: Mapping[str, Result], tell: Tell
) -> None:
  """Draws one curve over all parts of a suite that fine-tune on few labels.

  Args:
    workdir: of the suite.
    results: of its parts that are done, by name.
    tell: is given a line if the picture fails.
  """
  few = [
    result
    for result in results.values()
    if result["protocol"] == "semi_supervised"
  ]
  if few:  # drawn after each part, so that the report has it from the start
    with spared(f"{_EFFICIENCY}.png", tell):
      png.save_png(
        str(epath.Path(workdir, f"{_EFFICIENCY}.png")), label_efficiency(few)
      )


def links(workdir: str, parts: Iterable[str]) -> str:
  """Markdown that links the pictures in the folders of a suite's parts."""
  found = []
  for folder in ("", *parts):
    names = sorted(
      path.name for path in epath.Path(workdir, folder).glob("*.png")
    )
    paths = [f"{folder}/{name}".lstrip("/") for name in names]
    found += [f"- [{path.removesuffix('.png')}]({path})" for path in paths]
  return "\n".join(["", "## Pictures", "", *found, ""]) if found else ""


def _draw(
  folder: epath.Path,
  pictures: Mapping[str, Make],
  missing: set[str],
  tell: Tell,
) -> None:
  """Writes all to TensorBoard, and then the files that are missing.

  The files come last, because they tell the next start that all was done.
  """
  drawn = {}
  for name, make in pictures.items():
    with spared(f"{name}.png", tell):
      drawn[name] = make()
  with spared("TensorBoard's copy of the pictures", tell):
    # A new start takes the place of what earlier ones showed, so all are shown.
    writer, _ = tensorboard_files.open_writer(folder / TENSORBOARD, 0)
    try:
      writer.write_images(0, {name: x[None] for name, x in drawn.items()})
    finally:
      writer.close()
  for name, picture in drawn.items():
    if name in missing:
      with spared(f"{name}.png", tell):
        png.save_png(str(folder / f"{name}.png"), picture)
        tell(f"Drawn: {folder / name}.png")


def _pictures(folder: epath.Path, result: Result) -> dict[str, Make]:
  """Name of each picture that the folder has the data of -> what draws it."""
  found: dict[str, Make] = {}
  for path in sorted(folder.glob(f"{GUESSES}*.npz")):
    name = path.stem.replace(GUESSES, CONFUSION, 1)
    found[name] = functools.partial(_confusion, path)
  if result["protocol"] == "transfer":
    found["penalties"] = functools.partial(_penalties, result)
  if result["protocol"] == "semi_supervised":
    found[_EFFICIENCY] = functools.partial(label_efficiency, [result])
  if result["protocol"] == "few_label" and curves_of_probes(result):
    found[_EFFICIENCY] = functools.partial(_probes, result)
  if (folder / f"{NEIGHBOURS}.npz").exists():
    found[NEIGHBOURS] = functools.partial(
      _neighbours, folder / f"{NEIGHBOURS}.npz"
    )
  if (folder / TENSORBOARD / projector.CONFIG).exists():
    found[PROJECTION] = functools.partial(_projection, folder / TENSORBOARD)
  return found | dense_pictures.pictures(folder)


def _classifies(result: Result) -> bool:
  """Whether the protocol gives each test image one class."""
  return (
    result["protocol"] not in _WITHOUT_CLASS
    and result["config"].get("metric") != "map11"
  )


def _confusion(path: epath.Path) -> np.ndarray:
  kept = whole_files.read_arrays(str(path))
  return confusion.picture(
    kept["true"],
    kept["guess"],
    kept["class_names"].tolist(),
    str(kept["about"]),
  )


def _penalties(result: Result) -> np.ndarray:
  metric = result["config"]["metric"]
  return charts.penalties(
    [(row["penalty"], row["valid"]) for row in result["path"]],
    chosen=result["penalty"],
    test=result[metric],
    metric=metric,
  )


def label_efficiency(results: Sequence[Result]) -> np.ndarray:
  """Draws the rows of all `results` of fine-tuning on parts of the labels.

  The paper's points stand beside them if it has any.
  """
  return charts.label_efficiency(
    {
      "ours": [
        (row["examples"], row["top1"])
        for result in results
        for row in result["rows"]
      ]
    },
    points_of_paper(results[0]),
    title=f"Fine-tuned on labels of {cells.data_of(results[0])}",
  )


def curves_of_probes(result: Result) -> dict[str, list[tuple[int, float]]]:
  """Representation -> (labels of each class, top-1) of its linear probes.

  There are none if the data has fewer labels than any probe needs.
  """
  return {
    row["representation"]: [
      (int(count), mean) for count, (mean, _) in row["linear"].items()
    ]
    for row in result["table"]
    if row["linear"]
  }


def _probes(result: Result) -> np.ndarray:
  draws = result["config"]["few_label"]["draws"]
  return charts.label_efficiency(
    curves_of_probes(result),
    title=f"Linear probes on few labels of {cells.data_of(result)}, mean of "
    f"{draws} draw(s)",
    labels="labels of each class",
  )


def points_of_paper(result: Result) -> list[tuple[float, float]]:
  """(labelled images, top-1) that the paper has for a result's encoder.

  There are none unless the data set is ImageNet. Of the paper's lists only the
  share is known, so each point stands at this share of our training split.
  """
  network = suite_report.network_of(result["encoder"])
  if not network or cells.data_of(result) != paper.IMAGENET:
    return []
  examples = result["splits"][0]["examples"]
  points = []
  for share, (table, column) in _THEIRS.items():
    number = paper.TABLES[table].number(network, column)
    if number is not None:
      points.append((share * examples, number / 100))
  return points


def _neighbours(path: epath.Path) -> np.ndarray:
  kept = whole_files.read_arrays(str(path))
  return neighbour_sheet.sheet(
    kept["images"], kept["label"], kept["similarity"], kept["names"].tolist()
  )


def _projection(folder: epath.Path) -> np.ndarray:
  features, about = projector.read(folder)
  names, label = np.unique(about["class"], return_inverse=True)
  points = projection.embeddings(features, _SEED)
  return projection.picture(points, label, names.tolist())
