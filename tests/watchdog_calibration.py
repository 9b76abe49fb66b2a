"""The watchdog on known collapses beside healthy runs: digits and photographs.

Command: python -m tests.watchdog_calibration --workdir=runs/watchdog
  With --only=NAME,NAME some of the runs. A second call goes on where the first
  one was cut off; what is finished is only read. Each run takes half a minute.

Runs of the first part chose the thresholds of configs/byol.py; those of the
second part, which chose nothing, prove them. A collapse has the online network
as its target (τ = 0, held), no predictor, or both. Photographs are 1,000 and
500 images of CIFAR-10 from ../shared/data beside the repository.

Prints for each run the best 5-NN accuracy, the last one, the update at which it
was first ten points below its best, the update of the alarm, and the least
values that the two signals took, as shares; that of the gain after the warm-up.
The alarm is what today's thresholds make of what the run has reported, so that
others can be tried without training again. Exit code 1 if a collapse raised no
alarm or raised it after accuracy fell, or if a healthy run raised one.
"""

import argparse
import json
import math
import pathlib
import runpy
import sys
import time

import cv2
import jax

from byol_flax.evaluation import online
from byol_flax.pretrain import attempts, watchdog
from byol_flax.runs import distributed, metrics_log, start_clock
from configs import byol, byol_digits

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
FALL = 0.1  # of 5-NN accuracy

HELD = {"objective.target": "online_stopped"}
BARE = {"model.predictor.layers": 0}
BOTH = {**HELD, **BARE}
# The paper's views, in place of weaker ones. With them a network that is its
# own target does not collapse in 406 updates, nor in 4,687: no alarm is due.
STRONG = {
  f"augment.{view}.{key}": value
  for view in ("view1", "view2")
  for key, value in byol.get_config().augment[view].items()
}
WIDE = {f"model.{head}.output_size": 128 for head in ("projector", "predictor")}

# Name -> what the run changes. "photos" are photographs, the others digits, and
# "held", "bare" and "both" collapse.
CALIBRATING = {
  "digits": {},
  "digits held": HELD,
  "digits bare": BARE,
  "digits both": BOTH,
  "digits InfoNCE": {**BARE, "objective.negatives_weight": 1.0},
  "photos": {},
  "photos held": HELD,
  "photos bare": BARE,
  "photos both": BOTH,
}
PROVING = {
  "digits rate 4": {"base_learning_rate": 4.0},
  "digits rate 24": {"base_learning_rate": 24.0},
  "digits τ 0.9": {"base_target_decay": 0.9},
  "digits τ 0.999": {"base_target_decay": 0.999},
  "digits batch 256": {"batch_size": 256, "epochs": 60.0},
  "digits D 128": WIDE,
  "digits no warm-up": {"warmup_epochs": 0.0, "seed": 1},
  "digits InfoNCE rate 6": {
    **BARE,
    "objective.negatives_weight": 1.0,
    "base_learning_rate": 6.0,
  },
  "digits 110 epochs": {"epochs": 110.0, "evaluation.every_steps": 50},
  "photos rate 8": {"base_learning_rate": 8.0},
  "photos width 1": {"model.encoder.width": 1.0, "target_init": "copy"},
  "photos strong": STRONG,
  "photos strong τ 0": {**STRONG, **HELD},
  "digits held rate 24": {**HELD, "base_learning_rate": 24.0},
  "digits bare D 128": {**BARE, **WIDE},
  "digits both rate 4": {**BOTH, "base_learning_rate": 4.0},
  "photos held rate 8": {**HELD, "base_learning_rate": 8.0},
  "photos bare rate 2": {**BARE, "base_learning_rate": 2.0},
  "photos both width 1": {**BOTH, "model.encoder.width": 1.0},
}
RUNS = {**CALIBRATING, **PROVING}


def collapses(name):
  return bool({"held", "bare", "both"} & set(name.split()))


def make_config(name, photographs):
  """The config of a run; `photographs` is a folder of images."""
  config = byol_digits.get_config()
  config.epochs, config.warmup_epochs = 20.0, 2.0  # 449 updates
  config.model.encoder.width = 0.5
  config.augment.cache = "device"
  config.checkpoint.every_steps = 0
  config.report.every_steps = 1
  config.evaluation.every_steps = 10
  if name.startswith("photos"):
    config.data.update(name=f"folder:{photographs}", split="train")
    config.epochs = 26.0  # 406 updates
    config.base_learning_rate = 4.0
    config.augment.size = 16
    for view in ("view1", "view2"):
      config.augment[view].update(
        crop_area=(0.4, 1.0),
        crop_aspect=(3 / 4, 4 / 3),
        flip_probability=0.5,
        brightness=0.2,
        contrast=0.2,
        saturation=0.1,
        hue=0.05,
      )
    config.evaluation.update(split="test", every_steps=20, batch_size=200)
  config.update_from_flattened_dict(RUNS[name])
  return config


def write_photographs(folder):
  """Writes folders of splits and classes, if they are not there."""
  if folder.exists():
    return
  read = runpy.run_path(str(SHARED / "readers" / "cifar_lossless.py"))
  images, labels = read["decode"](
    str(SHARED / "cifar10" / "cifar10_test_lossless_xz.npz")
  )
  for i in range(1500):
    split = "train" if i < 1000 else "test"
    place = folder.with_suffix(".part") / split / str(labels[i])
    place.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(place / f"{i}.png"), images[i][..., ::-1])
  folder.with_suffix(".part").rename(folder)


def train(name, folder):
  """Makes or finishes a run; its console is a file beside it."""
  workdir = folder / name.replace(" ", "-")
  if not (workdir / "curves.png").exists():  # the last thing that a run writes
    with open(f"{workdir}.log", "a") as console:
      attempts.run(
        make_config(name, folder / "photographs"),
        str(workdir),
        restart=False,
        begins_with=None,
        open_evaluation=online.open_evaluation,
        processes=distributed.Processes(),
        start_clock=start_clock.StartClock(time.monotonic()),
        stream=console,
      )
    jax.clear_caches()
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def measured(lines, config):
  """[best and last accuracy, update of fall and of alarm, least shares]."""
  best = last = 0.0
  fell = alarm = math.inf
  least_spread = least_gain = math.inf
  past, settings = watchdog.Past(), watchdog.settings_of(config)
  for line in lines:
    kind, step = metrics_log.kind_of(line), line["step"]
    if kind == "evaluation":
      last = line["knn/test/top1"]
      best = max(best, last)
      if last < best - FALL:
        fell = min(fell, step)
    elif kind == "update":
      rises = line["train/learning_rate"] > past.rate
      past, reason = watchdog.judge(past, step, line, settings)
      if reason:
        alarm = min(alarm, step)
      least_spread = min(least_spread, past.spread / past.largest)
      if not rises:
        least_gain = min(least_gain, past.gain)
  return best, last, fell, alarm, least_spread, least_gain


def main():
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument("--workdir", default="runs/watchdog")
  parser.add_argument("--only", help="runs, with commas; all if not given")
  options = parser.parse_args()
  folder = pathlib.Path(options.workdir).resolve()
  write_photographs(folder / "photographs")
  wrong = []
  print(
    f"{'run':20}  best   last   fell  alarm  least spread  least gain",
    flush=True,
  )
  for name in options.only.split(",") if options.only else RUNS:
    config = make_config(name, folder / "photographs")
    best, last, fell, alarm, spread, gain = measured(
      train(name, folder), config
    )
    print(
      f"{name:20} {best:.3f}  {last:.3f} {fell:6} {alarm:6} {spread:13.2f} "
      f"{gain:11.2f}",
      flush=True,
    )
    right = alarm < fell if collapses(name) else alarm == math.inf
    if not right:
      wrong.append(name)
  if wrong:
    sys.exit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
  main()
