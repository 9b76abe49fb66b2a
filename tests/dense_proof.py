"""Trains for a dense task from a BYOL encoder and from random weights.

What tests/camvid.py and tests/bccd.py share. A proof
  1. pre-trains an encoder by BYOL on the images of train, without labels, for
     so many minutes: a few updates tell how many there will be;
  2. trains and evaluates with it, and with the random weights that it began
     with, each once for every seed;
  3. kills the first of these trainings by SIGKILL after its first checkpoint,
     and gives the same command again;
  4. prints the results beside each other, with the seconds that each took.
What is finished is only read by a second call. Nothing here needs TensorFlow.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "byol_flax.main")
TRIED = 24  # updates that tell how long one takes, without the first half

ENCODER = """from configs import byol


def get_config(arg=None):
  config = byol.get_config("architecture={architecture}")
  config.data.name = "unlabelled:{images}"
  config.batch_size = config.reference_batch_size = {batch}
  config.augment.size = {size}
  config.epochs = 1.0
  config.warmup_epochs = 0.0
  config.base_learning_rate = 2.0
  config.base_target_decay = 0.99
  config.optimizer.weight_decay = 1e-6
  config.model.projector.update(hidden_size=1024, output_size=128)
  config.model.predictor.update(hidden_size=1024, output_size=128)
  config.evaluation.every_steps = 0
  config.report.every_steps = 1
  config.checkpoint.keep_every = 0
  return config
"""


def parse(text, **defaults):
  """Options of a proof, and the flags that go on to `byol evaluate`."""
  parser = argparse.ArgumentParser(description=text.splitlines()[0])
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--minutes", type=float, default=40.0)
  parser.add_argument("--seeds", default="0,1,2")
  parser.add_argument("--architecture", default="resnet18")
  parser.add_argument("--batch", type=int, default=64, help="of pre-training")
  parser.add_argument("--size", type=int, default=128, help="of pre-training")
  parser.set_defaults(**defaults)
  options, flags = parser.parse_known_args()
  for flag in flags:
    if not flag.startswith("--config."):
      parser.error(f"{flag}: expected a flag of `byol evaluate`, --config.…")
  options.data, options.workdir = (
    path.absolute() for path in (options.data, options.workdir)
  )
  options.workdir.mkdir(parents=True, exist_ok=True)
  return options, flags


def environment():
  """Of a command: what one start has compiled the next ones find."""
  cache = {"JAX_COMPILATION_CACHE_DIR": f"{os.getcwd()}/runs/compiled"}
  paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  return {**cache, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def byol(*arguments):
  """Runs the command; its output goes where ours goes."""
  subprocess.run([*COMMAND, *arguments], env=environment(), check=True)


def names_in(path):
  """The first word of each line."""
  return [line.split()[0] for line in path.read_text().splitlines() if line]


def pretrain(options, train):
  """Pre-trains on the images in the list `train`; returns config and run."""
  folder = options.workdir
  images = folder / "images" / "train"
  names = names_in(train)
  if not images.exists():
    part = images.with_name("part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in names:
      (path,) = (options.data / "JPEGImages").glob(f"{name}.*")
      shutil.copy(path, part)
    part.rename(images)
  config = folder / "encoder.py"
  config.write_text(
    ENCODER.format(
      architecture=options.architecture,
      images=images.parent,
      batch=options.batch,
      size=options.size,
    )
  )

  def epochs_of(updates):
    # Half an update more, so that rounding takes none away.
    return (updates + 0.5) * options.batch / len(names)

  def train_for(workdir, updates, warmup):
    byol(
      "train",
      f"--config={config}",
      f"--config.epochs={epochs_of(updates)}",
      f"--config.warmup_epochs={epochs_of(warmup) if warmup else 0.0}",
      f"--workdir={workdir}",
    )

  planned = folder / "updates.json"
  if not planned.exists():
    train_for(folder / "tried", TRIED, 0)
    lines = (folder / "tried" / "metrics.jsonl").read_text().splitlines()
    times = [json.loads(line).get("time/step_ms") for line in lines]
    late = [ms for ms in times if ms is not None][TRIED // 2 :]
    updates = round(options.minutes * 60_000 / statistics.median(late))
    planned.write_text(json.dumps(max(updates, TRIED)))
  updates = json.loads(planned.read_text())
  run = folder / "byol"
  begun = time.monotonic()
  train_for(run, updates, updates // 10)
  print(
    f"pre-trained: {updates:,} updates of {options.batch} on {len(names)} "
    f"images; this call took {time.monotonic() - begun:.0f} s",
    flush=True,
  )
  return config, run


def evaluate(folder, arguments, *, kill):
  """The result of an evaluation, and seconds; killed once if `kill` says so."""
  result, spent = folder / "result.json", folder.with_suffix(".seconds.json")
  words = ["evaluate", f"--workdir={folder}", *arguments]
  seconds = json.loads(spent.read_text()) if spent.exists() else 0.0
  if not result.exists():
    begun = time.monotonic()
    if kill and not spent.exists():
      _kill_once(folder, words)
      seconds += time.monotonic() - begun
      spent.write_text(json.dumps(seconds))
      begun = time.monotonic()
    byol(*words)
    spent.write_text(json.dumps(seconds + time.monotonic() - begun))
  return json.loads(result.read_text()), json.loads(spent.read_text())


def _kill_once(folder, words):
  """Starts the command, and kills it when it has saved for the first time."""
  process = subprocess.Popen([*COMMAND, *words], env=environment())
  while process.poll() is None:
    saved = [
      path.name
      for path in folder.glob("*/checkpoints/*")
      if path.name.isdigit()
    ]
    if saved:
      process.send_signal(signal.SIGKILL)
      process.wait()
      print(f"killed by SIGKILL after checkpoint {saved[0]}", flush=True)
      return
    time.sleep(0.2)
  if process.returncode:
    raise SystemExit(f"The command ended with {process.returncode}.")
  print("It ended before it could be killed.", flush=True)


def compare(options, flags, config, run, line):
  """Trains from both encoders; prints `line(result)` of each."""
  seeds = tuple(int(seed) for seed in options.seeds.split(","))
  rows = []
  for name, encoder in (("byol", run), ("random", f"random:{config}")):
    result, seconds = evaluate(
      options.workdir / f"from-{name}",
      [f"--encoder={encoder}", f"--config.seeds={seeds}", *flags],
      kill=name == "byol",
    )
    rows.append(f"{name:8}{line(result)}; {seconds:,.0f} s")
  print("\n".join(rows))


def spread(found):
  """Mean, deviation and each value of a result's "spread"."""
  each = ", ".join(f"{x:.3f}" for x in found["each"])
  deviation = found["deviation"]
  text = "" if deviation is None else f" ± {deviation:.3f}"
  return f"{found['mean']:.3f}{text} ({each})"
