"""The report of a suite: what was found, beside the paper's numbers.

It is made from results alone, so it can be made again without any encoder.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byol_flax.reports import cells, paper
from byol_flax.reports.paper import Network

_DATA = {paper.IMAGENET: "ImageNet", paper.PLACES365: "Places365"}


@dataclasses.dataclass(frozen=True)
class Part:
  """One evaluation of a suite.

  Attributes:
    result: what it found; None if it has found nothing yet.
    why_not: why it was not done as asked now; "" if it was, or if nobody asked
      for it.
    changed: settings that are not those of the suite's config file: key ->
      [there, now].
  """

  result: Mapping[str, Any] | None
  why_not: str
  changed: Mapping[str, list[Any]]


def make(
  suite: str, encoder: Mapping[str, Any], parts: Mapping[str, Part]
) -> dict[str, Any]:
  """Returns the report as a JSON object; `markdown.render` makes it a text.

  Values are in percent, but in a row's "unit" if it has another.

  Args:
    suite: its name.
    encoder: provenance of what was evaluated.
    parts: all parts of the suite, by name.
  """
  network = network_of(encoder)
  done = {name: x.result for name, x in parts.items() if x.result}
  tables = []
  for number, places in cells.of_tables().items():
    rows = [_row(number, network, cell, parts) for cell in places]
    tables.append(
      {
        "number": number,
        "title": paper.TABLES[number].title,
        "rows": [r for r in rows if (r["ours"], r["paper"]) != (None, None)],
        "note": _about_data(number, rows),
      }
    )
  return {
    "suite": suite,
    "encoder": dict(encoder),
    "network": describe(encoder),
    "notes": _notes(encoder, network),
    "tables": tables,
    "others": [
      {
        "name": name,
        "part": part,
        "ours": _percent(value),
        "remark": _remark(parts[part], than="those of the suite"),
      }
      for name, part, value in cells.beside_the_paper(done)
    ],
    "parts": {name: dataclasses.asdict(part) for name, part in parts.items()},
  }


def network_of(encoder: Mapping[str, Any]) -> Network | None:
  """The row of the paper's tables that an encoder is compared with.

  None if the paper has none: nobody knows what the encoder was trained on, or
  it has a stem or a shortcut that the paper's do not have, or another
  architecture or width.
  """
  kind, trained_on = encoder["architecture"], encoder["trained_on"]
  if kind["stem"] != "imagenet":
    return None
  shape = kind["architecture"], kind["width"]
  if _is_untrained(encoder):
    network = paper.untrained(*shape)
  elif not trained_on:
    return None
  else:
    data = cells.without_version(trained_on["name"])
    network = Network(
      *shape, data if data in _DATA else paper.IMAGENET, encoder["trained_by"]
    )
  known = any(network in table.rows for table in paper.TABLES.values())
  return network if known else None


def _is_untrained(encoder: Mapping[str, Any]) -> bool:
  """Whether its weights are random; of a file nobody may know that."""
  return not encoder["trained_on"] and "trained_by" not in encoder


_HOW = {
  "byol": "trained by BYOL",
  "labels": "trained with labels",
  "variant": "trained by another loss than BYOL's",
}


def describe(encoder: Mapping[str, Any]) -> str:
  """Says "ResNet-50 (1×), trained by BYOL on ImageNet"."""
  kind, trained_on = encoder["architecture"], encoder["trained_on"]
  depth = kind["architecture"].removeprefix("resnet")
  stem = "" if kind["stem"] == "imagenet" else f", {kind['stem']} stem"
  what = f"ResNet-{depth} ({kind['width']:g}×{stem})"
  if _is_untrained(encoder):
    return f"{what}, never trained"
  if not trained_on:
    return f"{what}, from a weight file"
  how = _HOW.get(encoder["trained_by"], "trained")
  return f"{what}, {how} on {_name_of(trained_on['name'])}"


def _row(
  number: str,
  network: Network | None,
  cell: cells.Cell,
  parts: Mapping[str, Part],
) -> dict[str, Any]:
  """One place of a table."""
  table = paper.TABLES[number]
  theirs = table.number(network, cell.column) if network else None
  unit = table.units.get(cell.column, "%")
  row = {
    "name": cell.column,
    "unit": unit,
    "part": cell.parts[-1],
    "ours": None,
    "paper": theirs,
    "difference": None,
    "data": None,
    "remark": "",
  }
  for name in cell.parts:
    part = parts.get(name)
    value = cell.value(part.result) if part and part.result else None
    if part and part.result and value is not None:
      factor, digits = (100, 2) if unit == "%" else (1, 4)
      ours = round(factor * value, digits)
      return row | {
        "part": name,
        "ours": ours,
        "difference": None if theirs is None else round(ours - theirs, digits),
        "data": cells.data_of(part.result),
        "remark": _remark(part),
      }
  return row


def _remark(part: Part, *, than: str = "the paper's") -> str:
  """What keeps a value from being the paper's quantity, or the suite's."""
  result = part.result or {}
  remarks = []
  if other := _other_images(result):
    remarks.append(other)
  if "tried" in result and result["tried"] < result["of"]:
    remarks.append(f"{result['tried']} of {result['of']} points of the grid")
  if part.changed:
    changed = (
      f"{key} {now} and not {there}"
      for key, (there, now) in part.changed.items()
    )
    remarks.append(f"other settings than {than}: {', '.join(changed)}")
  return "; ".join(remarks)


def _other_images(result: Mapping[str, Any]) -> str:
  """Says it if a dense task was not measured on as many images as the paper's.

  Folders in the layout of VOC have any name, so only their number can tell.
  """
  protocol = result.get("protocol")
  if protocol not in paper.TESTED or not result["splits"]:
    return ""
  theirs, images = paper.TESTED[protocol]
  test = result["splits"][-1]
  count = test["examples"] - (test.get("unreadable") or 0)
  if count == images:
    return ""
  return (
    f"measured on {count:,} images of {test['name']} "
    f"({test['split']}), the paper's on {theirs} with {images:,}"
  )


def _about_data(number: str, rows: list[dict[str, Any]]) -> str:
  """Says it if ours and the paper's are not of the same data."""
  theirs = paper.TABLES[number].data
  others = {row["data"] for row in rows} - {None, theirs}
  if not theirs or not others:
    return ""
  names = " and ".join(_name_of(name) for name in sorted(others))
  return f"Ours is measured on {names}, the paper's on {_name_of(theirs)}."


def _notes(encoder: Mapping[str, Any], network: Network | None) -> list[str]:
  """What to know before comparing."""
  if not network:
    return ["The paper has no numbers for this encoder; ours stand alone."]
  if _is_untrained(encoder):
    return [
      "This encoder was never trained; the numbers of the paper are of "
      "trainings that begin with random weights."
    ]
  trained_on = cells.without_version(encoder["trained_on"]["name"])
  if trained_on in _DATA:
    return []
  return [
    f"This encoder was trained on {trained_on}; the numbers of the paper are "
    "of encoders trained on ImageNet."
  ]


def _name_of(data_set: str) -> str:
  """What people call it."""
  name = cells.without_version(data_set)
  return _DATA.get(name, name)


def _percent(value: float) -> float:
  return round(100 * value, 2)
