"""The table of all published configs, each on its slices.

Command: python -m tests.preflight_table launch/slices.tsv FOLDER OUT.md
Runs `byol preflight` for every line of the TSV file (config, slice, zone, why)
and keeps each answer as FOLDER/CONFIG@SLICE.json; an answer that is there is
not asked for again. Twenty minutes on two cores for the first line of each
config. The cheap slices are asked about with --fast, because many images on a
device make the compiler slow, and take two hours more.
"""

import csv
import json
import pathlib
import subprocess
import sys
from typing import Any

from byol_flax.preflight.estimate import amount
from byol_flax.runs.progress_line import human_duration
from byol_flax.slices import GIB

_HEADER = (
  "config",
  "slice",
  "images a device",
  "GiB of a device",
  "update, by cycles",
  "of peak",
  "optimistic",
  "of peak",
  "images/s a host, at most",
  "run",
  "device-hours",
  "run, at least",
  "smaller slice",
)


def main(slices: str, folder: str, out: str) -> None:
  """Asks for what is missing, then writes the table."""
  with open(slices) as file:
    lines = [line for line in file if not line.startswith("#")]
  rows = []
  for config, slice_, _, why in csv.reader(lines, delimiter="\t"):
    path = pathlib.Path(folder, f"{config}@{slice_}.json")
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      command = ["-m", "byol_flax.main", "preflight", f"--slice={slice_}"]
      command += [f"--config=configs/{config}.py", f"--out={path}"]
      command += ["--fast"] if why == "cheap" else []
      subprocess.run([sys.executable, *command], check=False)
    rows.append(row(config, json.loads(path.read_text())))
  text = [
    " | ".join(cells) for cells in (_HEADER, ["---"] * len(_HEADER), *rows)
  ]
  pathlib.Path(out).write_text(
    pathlib.Path(out).read_text().split("\n| config |")[0]
    + "".join(f"\n| {line} |" for line in text)
    + "\n"
  )


def row(config: str, answer: dict[str, Any]) -> list[str]:
  """Cells of one config."""
  step, run, slice_ = answer["step"], answer["run"], answer["slice"]
  if not step["fits"]:
    cells = [config, slice_["name"], "-", "does not fit"]
    return cells + ["-"] * (len(_HEADER) - len(cells))
  memory = f"{step['peak_bytes'] / GIB:.1f} of {slice_['hbm_bytes'] / GIB:.1f}"
  advice = answer["advice"]
  other = "-"
  if advice:
    other = f"{advice['slice']}, up to {advice['times_longer']:g} times as long"
  return [
    config,
    slice_["name"],
    f"{run['images_per_device']:g}",
    memory,
    f"{1e3 * step['cycle_seconds']:.1f} ms"
    + (", guessed" if answer["extrapolated"] else ""),
    f"{run['cycle_share_of_peak']:.0%}",
    f"{1e3 * step['seconds']:.1f} ms",
    f"{run['share_of_peak']:.0%}",
    f"{run['images_per_host_second']:,.0f}",
    human_duration(3600 * run["hours"]),
    amount(run["device_hours"]),
    human_duration(3600 * run["least_hours"]),
    other,
  ]


if __name__ == "__main__":
  main(*sys.argv[1:])
