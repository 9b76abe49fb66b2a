"""Transfers to small copies of the paper's twelve sets, and fine-tunes on them.

Command: python -m tests.reach_sets [SET ...]
Prints a line for each set and protocol, with what is measured and the sizes of
the splits. The encoder is the smallest, untrained; fine-tuning does two
updates. So the numbers mean nothing: what is shown is that each set is reached.
Some four minutes on two cores.
"""

import os
import pathlib
import sys
import tempfile
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from byol_flax.commands import config_bounds
from byol_flax.evaluation import finetune, transfer
from configs import finetune as finetune_config
from configs import sets
from configs import transfer as transfer_config
from input_pipeline import tfds_sources
from tests import small_sets
from tests.evaluation import settings

# Protocol -> its function, the module of its config, and what is made small.
PROTOCOLS = {
  "transfer": (
    transfer.run,
    transfer_config,
    {"penalties": {"least": 1.0, "most": 100.0, "count": 3}},
  ),
  "finetune": (
    finetune.run,
    finetune_config,
    {
      "batch_size": 8,
      "steps": 2,
      "learning_rates": (0.01, 0.1),
      "weight_decays": (0.0,),
    },
  ),
}


def main(names):
  """Evaluates on the sets of these names, or on all."""
  with (
    tempfile.TemporaryDirectory() as folder,
    mock.patch.object(tfds_sources, "KNOWN", small_sets.known()),
  ):
    out = pathlib.Path(folder)
    small_sets.write(out)
    folders = small_sets.write_folders(out)
    encoder = settings.untrained(settings.mesh_of(1))
    for name in names or sets.SETS:
      for protocol, (run, module, smaller) in PROTOCOLS.items():
        workdir = out / "runs" / f"{protocol}-{name}"
        workdir.mkdir(parents=True)
        setting = settings.setting(
          module.get_config(name),
          workdir,
          devices=1,
          opened=encoder,
          **{**small_sets.changes(name, out, folders), **smaller},
        )
        config_bounds.check(setting.config)
        found = run(setting)
        metric = setting.config.metric
        sizes = "/".join(str(x["examples"]) for x in found["splits"])
        print(
          f"{protocol:9} {name:10} {metric:14} {found[metric]:.3f}  {sizes}",
          flush=True,
        )


if __name__ == "__main__":
  main(sys.argv[1:])
