"""The table of all published configs, each on its slices.

Command: python -m tests.preflight_table launch/slices.tsv FOLDER OUT.md
Runs `byol preflight` for lines of the TSV file (config, slice, zone, why) and
keeps each answer as FOLDER/CONFIG@SLICE.json; an answer that is there is not
asked for again. Twenty minutes on two cores for the first line of each config.
On the cheap slices many images on a device make the compiler slow, so only
those of ASKED are asked about, with --fast, in another hour. The others are
predicted: from the config's first line to the cheap slice, the time and memory
of an image on a device are taken to change as those of an ASKED config do. For
photographs on v6e it needs another libtpu, see "v6e" in launch/README.md.
"""

import csv
import json
import pathlib
import subprocess
import sys
from typing import Any

from byol_flax import slices
from byol_flax.preflight.estimate import amount
from byol_flax.runs.progress_line import human_duration
from byol_flax.slices import GIB, Slice

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
# Configs whose cheap slices are asked about.
ASKED = ("byol_r50x1", "byol_cifar10", "byol_digits")
# Config -> the asked one that it resembles; byol_r50x1 for all others.
_LIKE = {"byol_imagenette": "byol_cifar10"}


def main(table: str, folder: str, out: str) -> None:
  """Asks for what is missing, then writes the table."""
  with open(table) as file:
    lines = [line for line in file if not line.startswith("#")]
  first: dict[str, Any] = {}
  cheap: dict[tuple[str, str], Any] = {}
  rows = []
  entries = list(csv.reader(lines, delimiter="\t"))
  for config, slice_, _, why in entries:
    if why != "cheap":
      first[config] = _answer(config, slice_, folder)
    elif config in ASKED:
      kind = slices.find(slice_).generation
      cheap[config, kind] = _answer(config, slice_, folder, "--fast")
  for config, slice_, _, why in entries:
    kind = slices.find(slice_).generation
    if why != "cheap":
      rows.append(row(config, first[config]))
    elif config in ASKED:
      answer = cheap[config, kind]
      how = "guessed" if answer["extrapolated"] else ""
      rows.append(row(config, answer, how))
    else:
      like = _LIKE.get(config, ASKED[0])
      predicted = _predict(
        first[config], slices.find(slice_), first[like], cheap[like, kind]
      )
      rows.append(row(config, predicted, "predicted"))
  text = [
    " | ".join(cells) for cells in (_HEADER, ["---"] * len(_HEADER), *rows)
  ]
  pathlib.Path(out).write_text(
    pathlib.Path(out).read_text().split("\n| config |")[0]
    + "".join(f"\n| {line} |" for line in text)
    + "\n"
  )


def _answer(config: str, slice_: str, folder: str, *flags: str) -> Any:
  """What preflight says, kept or asked for."""
  path = pathlib.Path(folder, f"{config}@{slice_}.json")
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["-m", "byol_flax.main", "preflight", f"--slice={slice_}"]
    command += [f"--config=configs/{config}.py", f"--out={path}", *flags]
    subprocess.run([sys.executable, *command], check=False)
  return json.loads(path.read_text())


def _predict(first: Any, slice_: Slice, like: Any, there: Any) -> Any:
  """An answer as preflight's.

  Args:
    first: of the config, on its first slice.
    slice_: another one.
    like: of another config, on its first slice.
    there: of that, on a slice of the generation of `slice_`.
  """
  step, run = first["step"], first["run"]
  images = step["batch_size"] / slice_.devices
  times = images / run["images_per_device"]

  def changed(name: str) -> float:
    """A value of the step that grows with the images on a device."""
    of_image = (
      there["step"][name]
      / there["run"]["images_per_device"]
      * like["run"]["images_per_device"]
      / like["step"][name]
    )
    return float(step[name] * times * of_image)

  cycles, optimistic = changed("cycle_seconds"), changed("seconds")
  floor = run["floor_seconds"] * times * first["slice"]["peak_flops"]
  floor /= slice_.peak_flops
  hours = step["total_steps"] * max(cycles, optimistic) / 3600
  return {
    "slice": {"name": slice_.name, "hbm_bytes": slice_.hbm_bytes},
    "step": {
      "fits": True,
      "peak_bytes": changed("peak_bytes"),
      "cycle_seconds": cycles,
      "seconds": optimistic,
    },
    "run": {
      "images_per_device": images,
      "cycle_share_of_peak": floor / cycles,
      "share_of_peak": floor / optimistic,
      "images_per_host_second": step["batch_size"]
      / min(cycles, optimistic)
      / slice_.hosts,
      "hours": hours,
      "device_hours": hours * slice_.devices,
      "least_hours": step["total_steps"] * min(cycles, optimistic) / 3600,
    },
    "advice": None,
  }


def row(config: str, answer: dict[str, Any], how: str = "") -> list[str]:
  """Cells of one config; `how` says how it was found, if not by compiling."""
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
    f"{1e3 * step['cycle_seconds']:.1f} ms{how and ', ' + how}",
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
