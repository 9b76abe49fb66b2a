"""Writes the report of a suite as Markdown."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

# Settings that say where and how a machine works, and not what it computes.
_OF_THE_MACHINE = (
  "data_dir",
  "deadlines",
  "checkpoint",
  "layout",
  "num_workers",
  "num_threads",
  "report_every_steps",
  "protocol",
)
# What results say of the best point of a sweep.
_CHOSEN = (
  "labels",
  "augmentation",
  "logit_regularisation",
  "learning_rate",
  "listed_weight_decay",
  "epochs",
  "penalty",
)


def render(report: Mapping[str, Any]) -> str:
  """The text of a report of `suite.make`."""
  parts = report["parts"]
  lines = [
    f"# The paper's evaluations of {report['network']}",
    "",
    f"Encoder: `{report['encoder']['encoder']}`, {_fingerprint(report)}.",
    "Numbers are percentages, unless their row names another unit.",
    *(f"\n{note}" for note in report["notes"]),
  ]
  empty = [t["number"] for t in report["tables"] if not _has_ours(t)]
  for table in report["tables"]:
    if _has_ours(table):
      lines += ["", *_table(table)]
  if report["others"]:
    lines += ["", "## Not in the paper", ""]
    mark, footnotes = _remarks(report["others"])
    rows = [
      (x["name"], number(x["ours"]) + mark(x), x["part"])
      for x in report["others"]
    ]
    lines += [*grid(("", "ours", "part"), rows, right=(1,)), *footnotes]
  if empty:
    lines += ["", f"Nothing was measured for {_tables(empty)}."]
  lines += _not_done(parts)
  done = {name: part for name, part in parts.items() if part["result"]}
  if done:
    lines += ["", "## Protocol cards"]
  for name, part in done.items():
    lines += ["", f"### {name}", "", *_card(part)]
  return "\n".join(lines) + "\n"


def _fingerprint(report: Mapping[str, Any]) -> str:
  """Names the digest of a checkpoint, or of random weights."""
  encoder = report["encoder"]
  if "digest" in encoder:
    return f"digest `{encoder['digest']}`"
  return f"digest of its weights `{encoder['weights_digest']}`"


def _has_ours(table: Mapping[str, Any]) -> bool:
  return any(row["ours"] is not None for row in table["rows"])


def _table(table: Mapping[str, Any]) -> Iterator[str]:
  """A table of the paper; remarks are numbered below it."""
  yield f"## Table {table['number']}: {table['title']}"
  yield ""
  mark, footnotes = _remarks(table["rows"])
  rows = [
    (
      row["name"] if row["unit"] == "%" else f"{row['name']} ({row['unit']})",
      _of(row, "ours") + mark(row),
      _of(row, "paper"),
      _of(row, "difference", sign=True),
      row["part"],
    )
    for row in table["rows"]
  ]
  head = ("", "ours", "paper", "difference", "part")
  yield from grid(head, rows, right=(1, 2, 3))
  yield from footnotes
  if table["note"]:
    yield f"\n{table['note']}"


def _of(row: Mapping[str, Any], key: str, *, sign: bool = False) -> str:
  """A number of a row, with as many digits as the paper prints."""
  return number(row[key], sign=sign, digits=1 if row["unit"] == "%" else 3)


def _remarks(
  rows: Sequence[Mapping[str, Any]],
) -> tuple[Callable[[Mapping[str, Any]], str], list[str]]:
  """What marks a row that has a remark, and the remarks as footnotes."""
  remarks = list(dict.fromkeys(row["remark"] for row in rows if row["remark"]))

  def mark(row: Mapping[str, Any]) -> str:
    if not row["remark"]:
      return ""
    return f" [{remarks.index(row['remark']) + 1}]"

  footnotes = [
    f"\n[{place}] {remark[0].upper()}{remark[1:]}."
    for place, remark in enumerate(remarks, 1)
  ]
  return mark, footnotes


def _not_done(parts: Mapping[str, Any]) -> Iterator[str]:
  """The parts that were left out, and why."""
  left = [(name, x["why_not"]) for name, x in parts.items() if x["why_not"]]
  rest = [n for n, x in parts.items() if not (x["result"] or x["why_not"])]
  if left or rest:
    yield from ("", "## Not done")
  if left:
    yield ""
    yield from grid(("part", "why"), [(n, cell(why)) for n, why in left])
  if rest:
    yield f"\nThe command did not ask for {', '.join(rest)}."


def _unreadable(split: Mapping[str, Any]) -> str:
  """Says how many images could not be read; older results do not tell."""
  count = split.get("unreadable")
  return f" ({count:,} unreadable)" if count else ""


def _card(part: Mapping[str, Any]) -> Iterator[str]:
  """What a result depends on."""
  result = part["result"]
  for split in result["splits"]:
    yield (
      f"- data: {split['name']}, {split['split']}: {split['examples']:,} "
      f"images{_unreadable(split)}, {split['classes']} classes, fingerprint "
      f"`{split['fingerprint']}`"
    )
  # Results of older versions lack some of what follows.
  held_out = dict.fromkeys(split.get("held_out") for split in result["splits"])
  yield from (f"- {how}" for how in held_out if how)
  yield f"- selection: {result.get('selection', 'not recorded')}"
  settings = ", ".join(
    f"{key} {_value(value)}"
    for key, value in _flat(result["config"])
    if key.split(".")[0] not in _OF_THE_MACHINE
  )
  yield f"- protocol: {result['protocol']}; {settings}"
  if chosen := "; ".join(filter(None, map(_chosen, _rows(result)))):
    yield f"- chosen: {chosen}"
  for choice in result.get("choices", ()):
    yield f"- choice: {choice}"
  encoder = result["encoder"]
  digest = encoder.get("digest") or encoder.get("weights_digest")
  yield f"- encoder: `{encoder['encoder']}`, `{digest}`"
  made_by = "; before it ".join(
    f"{maker['devices']}, commit `{maker['code_version']}`"
    for maker in (result, *reversed(result.get("also_made_by", ())))
  )
  yield (
    f"- {result.get('updates', 0):,} updates; {result['seconds']:,} seconds "
    f"from its last start on, {made_by}"
  )


def _rows(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
  """Whatever a result has chosen something for."""
  rows: Sequence[Mapping[str, Any]] = result.get("rows") or [result]
  return rows


def _chosen(row: Mapping[str, Any]) -> str:
  """Says what was chosen for a row."""
  return ", ".join(
    f"{key.replace('_', ' ')} {_value(row[key])}"
    for key in _CHOSEN
    if key in row
  )


def _flat(
  config: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of a nested object."""
  for key, value in config.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f"{above}{key}.")
    else:
      yield f"{above}{key}", value


def _value(value: Any) -> str:
  """A setting as people write it."""
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, float):
    return f"{value:.4g}"
  if isinstance(value, Sequence) and not isinstance(value, str):
    return f"({', '.join(map(_value, value))})"
  return "–" if value in (None, "") else str(value)


def number(value: float | None, *, sign: bool = False, digits: int = 1) -> str:
  """One decimal, as in the paper, or `digits` of them; a true minus."""
  if value is None:
    return "–"
  return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _tables(numbers: Sequence[str]) -> str:
  """Says "Table 1" or "Tables 1, 2 and 3"."""
  if len(numbers) == 1:
    return f"Table {numbers[0]}"
  return f"Tables {', '.join(numbers[:-1])} and {numbers[-1]}"


def cell(text: str) -> str:
  """A text that cannot break a table."""
  return " ".join(text.split()).replace("|", "\\|")


def grid(
  head: Sequence[str],
  rows: Iterable[Sequence[str]],
  right: Sequence[int] = (),
) -> Iterator[str]:
  """A table of Markdown; the columns `right` hold numbers."""
  yield f"| {' | '.join(head)} |"
  rules = ("---:" if i in right else "---" for i in range(len(head)))
  yield f"| {' | '.join(rules)} |"
  for row in rows:
    yield f"| {' | '.join(row)} |"
