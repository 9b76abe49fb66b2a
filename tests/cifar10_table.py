"""CIFAR-10: what pre-training gained over random weights and raw pixels.

Command: python -m tests.cifar10_table --encoder=RUN --workdir=DIR \
  --data-dir=TFDS_DIR
  RUN is a run on CIFAR-10. A second call goes on where the first was cut off.

Prints top-1 on test, in percent, of linear evaluation (two epochs, batch 250),
of L-BFGS and of 20 nearest neighbours, for the encoder of RUN, for the same
network with random weights, and for raw pixels, which the L-BFGS and the
neighbours of this program take as they are. Penalties are half a decade apart.
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np

from byol_flax import sharding
from byol_flax.evaluation import knn, logistic, scores
from input_pipeline import sources
from input_pipeline.decoding import decode_image
from tests.continuation import byol

ROOT = pathlib.Path(__file__).parents[1]
PENALTIES = {"least": 1e-4, "most": 1e5, "count": 19}
PROTOCOLS = {
  "linear": ("--config.epochs=2", "--config.batch_size=250"),
  "transfer": tuple(
    f"--config.penalties.{k}={v}" for k, v in PENALTIES.items()
  ),
  "knn": ("--config.neighbours=(20,)",),
}
# Its argument is the workdir of a run, whose network it has.
RANDOM = """import json
import pathlib

from ml_collections import ConfigDict


def with_tuples(value):
  if isinstance(value, dict):
    return {name: with_tuples(each) for name, each in value.items()}
  return tuple(value) if isinstance(value, list) else value


def get_config(arg):
  text = pathlib.Path(arg, "config.json").read_text()
  return ConfigDict(with_tuples(json.loads(text)))
"""


def found(folder, protocol, encoder, data_dir):
  """Top-1 of an evaluation that is made, or finished, if need be."""
  result = folder / "result.json"
  if not result.exists():
    byol(
      "evaluate",
      f"--config={ROOT}/configs/{protocol}.py",
      f"--encoder={encoder}",
      f"--workdir={folder}",
      f"--config.data_dir={data_dir}",
      "--config.data_name=cifar10",
      *PROTOCOLS[protocol],
    )
  answer = json.loads(result.read_text())
  if protocol == "linear":
    return answer["rows"][0]["top1"]
  top1 = answer["top1"]
  return top1["weighted"]["20"] if protocol == "knn" else top1


def of_pixels(data_dir):
  """Top-1 of L-BFGS and of the neighbours of raw pixels."""
  splits = {}
  for name in ("train_without_valid", "valid", "test"):
    source = sources.open_source("cifar10", name, data_dir)
    examples = [source[i] for i in range(len(source))]
    images = np.stack([decode_image(each["image"]) for each in examples])
    labels = np.array([example["label"] for example in examples])
    splits[name] = images.reshape(len(images), -1) / np.float32(255), labels
  train, valid, test = splits.values()
  both = tuple(np.concatenate(pair) for pair in zip(train, valid, strict=True))
  mesh = sharding.make_mesh(jax.devices())

  def accuracy(fit, split):
    return scores.top_k(logistic.Scorer.of(split[0], mesh)(fit), split[1])

  def regression(split):
    return logistic.Regression(*split, num_classes=10, mesh=mesh)

  path = regression(train).path(logistic.penalties(**PENALTIES))
  _, chosen = max((accuracy(fit, valid), fit.penalty) for fit in path)
  (fit,) = regression(both).path([chosen])
  nearest = knn.top1(*both, *test, k=20, num_classes=10, mesh=mesh)
  return accuracy(fit, test), nearest


def main(*argv):
  """Prints the table."""
  parser = argparse.ArgumentParser()
  for name in ("encoder", "workdir", "data-dir"):
    parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
  given = parser.parse_args(argv)
  folder, run = given.workdir.absolute(), given.encoder.absolute()
  data_dir = given.data_dir.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "of_a_run.py").write_text(RANDOM)
  network = str(run).partition("@")[0]
  print(f"{'':<16}" + "".join(f"{name:>10}" for name in PROTOCOLS))
  for row, encoder in (
    ("BYOL", run),
    ("random weights", f"random:{folder}/of_a_run.py:{network}"),
  ):
    values = [
      found(folder / f"{row.split()[0]}-{name}", name, encoder, data_dir)
      for name in PROTOCOLS
    ]
    print(f"{row:<16}" + "".join(f"{100 * v:>10.1f}" for v in values))
  regression, neighbours = of_pixels(str(data_dir))
  print(
    f"{'raw pixels':<16}{'–':>10}{100 * regression:>10.1f}"
    f"{100 * neighbours:>10.1f}"
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
