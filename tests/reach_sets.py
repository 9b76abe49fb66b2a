"""The suite of the paper's evaluations, on small copies of all its sets.

Command: python -m tests.reach_sets FOLDER
Writes the sets as TFDS would, and runs `byol evaluate --suite=paper` on them
with the smallest encoder, untrained; trainings do a few updates. So the numbers
mean nothing: what is shown is that every part is reached. It fails unless all
parts have a result. The report is left in FOLDER/suite. Some five minutes on
two cores; given again, it goes on.
"""

import os
import pathlib
import sys
from unittest import mock

from ml_collections import ConfigDict

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from byol_flax import main as byol
from configs import paper
from input_pipeline import known_sets
from tests import small_sets

# A run on ImageNet, of which only the encoder and the size of images count.
_ENCODER = """
from configs import byol_digits

def get_config(arg=None):
  config = byol_digits.get_config()
  config.model.encoder.width = 0.25
  config.data.name = "imagenet2012"
  return config
"""

# Protocol -> what is made small.
_SMALLER = {
  "knn": {"neighbours": (1, 3)},
  "transfer": {"penalties.least": 1.0, "penalties.count": 3},
  "linear": {"batch_size": 8, "epochs": 1.0},
  "semi_supervised": {
    "batch_size": 2,
    "epochs": (1.0,),
    "learning_rates": (0.1,),
  },
  "finetune": {
    "batch_size": 8,
    "steps": 2,
    "learning_rates": (0.1,),
    "weight_decays": (0.0,),
  },
  "supervised": {"batch_size": 8, "epochs": 1.0, "warmup_epochs": 0.0},
}


def parts():
  """Name of a part -> its config."""
  suite = paper.get_config()
  return {
    name: config
    for name, config in suite.items()
    if isinstance(config, ConfigDict) and "protocol" in config
  }


def done(out, part):
  """Whether there is a result; `linear` is that of the encoder's own set."""
  return part == "linear_imagenet" or (out / part / "result.json").exists()


def words(out, folders):
  """The command line."""
  yield from ("evaluate", "--suite=paper", f"--workdir={out / 'suite'}")
  yield f"--encoder=random:{out / 'encoder.py'}"
  yield f"--config.data_dir={out}"
  for part, config in parts().items():
    smaller = {"num_workers": 0, **_SMALLER[config.protocol]}
    if config.protocol in ("transfer", "finetune"):
      name = part.split("_", 1)[1]
      smaller |= small_sets.changes(name, out, folders)
    for key, value in smaller.items():
      yield f"--config.{part}.{key}={value}"


def main(out):
  """Writes the sets, and runs the suite."""
  out = pathlib.Path(out).absolute()
  if not (out / "encoder.py").exists():
    small_sets.write(out)
    small_sets.write_folders(out)
    (out / "encoder.py").write_text(_ENCODER)
  folders = {name: f"folder:{out / name}" for name in ("birdsnap", "aircraft")}
  with mock.patch.object(known_sets, "KNOWN", small_sets.known()):
    code = byol.main(list(words(out, folders)))
  print((out / "suite" / "report.md").read_text())
  missing = [part for part in parts() if not done(out / "suite", part)]
  print(f"exit code {code}; parts without a result: {missing or 'none'}")
  return code or bool(missing)


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
