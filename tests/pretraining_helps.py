"""That pre-training helps: digits, three seeds, against random weights.

Command: python -m tests.pretraining_helps --workdir=runs/helps
  A second call goes on where the first one was cut off.

For each seed the demo's run is made, and three protocols evaluate it and the
same network with random weights of the same seed: linear evaluation,
fine-tuning on one label a class, and fine-tuning on all labels in 20 updates;
the more updates there are, the less is left to gain on digits.
All choose on the same held-out images and report on test. Prints top-1 of each,
and the gain in points: mean and deviation over the seeds. Exit code 1 unless
every gain is at least five points and three of its standard deviations. Forty
minutes on two cores.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from tests.continuation import byol

ROOT = pathlib.Path(__file__).parents[1]
SEEDS = (0, 1, 2)
LEAST_GAIN = 5.0  # points
LEAST_DEVIATIONS = 3.0

# Its argument is the seed.
RANDOM = """from configs import byol_digits


def get_config(arg):
  config = byol_digits.get_config()
  config.seed = int(arg)
  return config
"""

# Protocol -> its flags. The rates are larger than the paper's, because a batch
# is smaller and there are fewer updates.
PROTOCOLS = {
  "linear": ("--config.batch_size=64",),
  "semi_supervised": (
    "--config.shares=(0.007,)",  # of 129 images of a class: one
    "--config.batch_size=10",
    "--config.learning_rates=(0.2,0.5,1.0,2.0,5.0)",
  ),
  "finetune": (
    "--config.batch_size=64",
    "--config.steps=20",
    "--config.learning_rates=(0.003,0.01,0.03,0.1,0.3)",
    "--config.weight_decays=(0.0,)",
  ),
}


def top1(folder, protocol, encoder):
  """In percent, of an evaluation that is made, or finished, if need be."""
  result = folder / "result.json"
  if not result.exists():
    byol(
      "evaluate",
      f"--config={ROOT}/configs/{protocol}.py",
      f"--encoder={encoder}",
      f"--workdir={folder}",
      *PROTOCOLS[protocol],
    )
  found = json.loads(result.read_text())
  (row,) = found.get("rows", [found])
  return 100 * row["top1"]


def main(*argv):
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  folder = parser.parse_args(argv).workdir.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "random_digits.py").write_text(RANDOM)
  found = {name: [] for name in PROTOCOLS}
  for seed in SEEDS:
    run = folder / f"byol-{seed}"
    config = f"--config={ROOT}/configs/byol_digits.py"
    byol("train", config, f"--config.seed={seed}", f"--workdir={run}")
    for name in PROTOCOLS:
      found[name].append(
        [
          top1(folder / f"{name}-{kind}-{seed}", name, encoder)
          for kind, encoder in (
            ("byol", run),
            ("random", f"random:{folder}/random_digits.py:{seed}"),
          )
        ]
      )
  print("protocol         BYOL           random         gain")
  enough = True
  for name, rows in found.items():
    pretrained, random = np.transpose(rows)
    gain = pretrained - random
    enough &= gain.mean() >= max(
      LEAST_GAIN, LEAST_DEVIATIONS * gain.std(ddof=1)
    )
    columns = " ".join(
      f"{x.mean():6.1f} ± {x.std(ddof=1):4.2f} "
      for x in (pretrained, random, gain)
    )
    print(f"{name:<16}{columns}")
  return 0 if enough else 1


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
