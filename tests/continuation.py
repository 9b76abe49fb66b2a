"""Which settings continue a finished run best: digits, against from scratch.

Command: python -m tests.continuation --workdir=runs/continuation
  With --only=NAME,NAME some of the rows. A second call goes on where the first
  one was cut off; what is finished is only read.

For each seed a run of half the updates is made, and each row of the table is a
new run that begins with its weights (`byol train --init`) and has as many
updates again; "from scratch" has all of them in one run. Accuracies are those
of `byol evaluate`: mean and deviation over the seeds, and after it the mean
difference from the row "defaults" of the same seed, with its standard error.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
SEEDS = (0, 1, 2)
EPOCHS = 30  # of the first half, and of the second
LEARNING_RATE = 12.0  # of configs/byol_digits.py

DIGITS = (
  f"--config={ROOT}/configs/byol_digits.py",
  "--config.model.encoder.width=1",
  "--config.evaluation.every_steps=0",
  "--config.checkpoint.every_steps=1000",
)
FIRST_HALF = "first half alone"
SCRATCH = "from scratch"
DEFAULTS = "defaults"
# Row -> what it changes; all but the first two begin with the first half.
ROWS = {
  FIRST_HALF: (f"--config.epochs={EPOCHS}",),
  SCRATCH: (f"--config.epochs={2 * EPOCHS}",),
  DEFAULTS: (),
  "learning rate × 0.5": (f"--config.base_learning_rate={LEARNING_RATE / 2}",),
  "learning rate × 0.25": (f"--config.base_learning_rate={LEARNING_RATE / 4}",),
  "no warm-up": ("--config.warmup_epochs=0",),
  "target decay 0.996": ("--config.base_target_decay=0.996",),
  "encoder alone": (),
  "warm-up of 1 epoch": ("--config.warmup_epochs=1",),
}
MEASURES = ("linear, 1/class", "linear, 5/class", "5-NN")


def byol(*arguments):
  """Runs the command; its output goes where ours goes."""
  cache = {"JAX_COMPILATION_CACHE_DIR": f"{os.getcwd()}/runs/compiled"}
  subprocess.run(
    [sys.executable, "-m", "byol_flax.main", *arguments],
    env={**cache, **os.environ},
    check=True,
  )


def measured(folder, row, seed):
  """Accuracies of a row's run, which is made, or finished, if need be."""
  workdir = place(folder, row, seed)
  summary = workdir / "summary.json"
  if not summary.exists():
    flags = [*DIGITS, f"--config.seed={seed}", f"--workdir={workdir}"]
    if row not in (FIRST_HALF, SCRATCH):
      what = "init-encoder" if row == "encoder alone" else "init"
      flags += [
        f"--config.epochs={EPOCHS}",
        f"--{what}={place(folder, FIRST_HALF, seed)}",
      ]
    byol("train", *flags, *ROWS[row])
    config = f"--config={ROOT}/configs/evaluate.py"
    byol("evaluate", config, f"--workdir={workdir}")
  (found,) = json.loads(summary.read_text())["table"]
  linear = found["linear"]
  return [linear["1"][0], linear["5"][0], found["knn"]]


def place(folder, row, seed):
  name = row.replace("× ", "x").replace(" ", "_")
  return pathlib.Path(folder).resolve() / f"{name}-{seed}"


def table(results):
  """Lines; `results` are row -> [seed, measure] accuracies."""
  width = max(map(len, results))
  yield f"{'':{width}}  " + "  ".join(f"{name:31}" for name in MEASURES)
  for row, values in results.items():
    cells = []
    apart = values - results[DEFAULTS] if DEFAULTS in results else values * 0
    for mean, deviation, difference, error in zip(
      values.mean(0),
      values.std(0, ddof=1),
      apart.mean(0),
      apart.std(0, ddof=1) / len(values) ** 0.5,
      strict=True,
    ):
      cells.append(
        f"{mean:.3f} ± {deviation:.3f} ({difference:+.3f} ± {error:.3f})"
      )
    yield f"{row:{width}}  " + "  ".join(f"{cell:31}" for cell in cells)


def main():
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument("--workdir", default="runs/continuation")
  parser.add_argument("--only", help="rows, with commas; all if not given")
  options = parser.parse_args()
  wanted = options.only.split(",") if options.only else ROWS
  results = {}
  for row in (name for name in ROWS if name in {FIRST_HALF, *wanted}):
    results[row] = np.array(
      [measured(options.workdir, row, seed) for seed in SEEDS]
    )
  print("\n".join(table(results)))


if __name__ == "__main__":
  main()
