"""The flags of the `byol` command and what they may be."""

import argparse
import pathlib
from collections.abc import Callable, Sequence

from byol_flax import bounds
from byol_flax.bounds import Bound, DataSet, Path, Real, Text, Whole
from byol_flax.commands import encoder_flags, weights_flags
from input_pipeline import paths

# They lie beside this package, both in a checkout and where a wheel installs.
SHIPPED_CONFIGS = str(pathlib.Path(__file__).absolute().parents[2] / "configs")
CONFIG_HELP = (
  "--config=FILE[:ARG] names a config file, such as configs/byol_digits.py or "
  "configs/byol.py:epochs=100; --config.key=value overrides one value. This "
  f"project's own are in {SHIPPED_CONFIGS} and are found from any folder."
)

# What flags may be; configs have bounds of their own.
BOUNDS: dict[str, Bound] = {
  "--workdir": Path(),
  "--init": Path(),
  "--init-encoder": Path(),
  "--continue": Path(),
  "--data": DataSet(),
  "--split": Text(),
  "--data-dir": Path(),
  "--batch-size": Whole(1),
  "--num-workers": Whole(-1, 10_000, ", -1 for one per core"),
  "--count": Whole(1, 16),  # a person can still take in so many columns
  "--seeds": Whole(1, 100),
  "--updates": Whole(1),
  "--longest-side": Whole(1, 65_535),
  "--price": Real(0),
  "--workers": Whole(-1, 10_000, ", -1 for one per core"),
  "--process-count": Whole(1),
  "--process-index": Whole(0),
}


def parse_command(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Splits the command line into a command with options, and config flags.

  Paths become absolute; gs://BUCKET/PATH stays as it is.

  Raises:
    UsageError: a number or path is out of bounds; argparse reports all else.
  """
  parser = argparse.ArgumentParser(
    prog="byol",
    description="Bootstrap Your Own Latent in JAX and Flax.",
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest="command", required=True)

  def add(name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(
      name, help=text, description=text, epilog=CONFIG_HELP, allow_abbrev=False
    )

  _add_train(add)
  encoder_flags.add_evaluate(add)
  encoder_flags.add_features(add)
  weights_flags.add_import(add)
  weights_flags.add_export(add, encoder_flags.add_encoder)
  verb = add("views", "Draw images and their two views, before any run.")
  verb.add_argument(
    "--out", type=paths.absolute, default="views.png", help="PNG to write"
  )
  verb.add_argument(
    "--count", type=int, default=8, help="how many images, up to 16"
  )

  _add_measuring(add)
  _add_reproduce(add)
  _add_prepare(add)
  for name in ("train", "evaluate", "features", "reproduce", "benchmark"):
    commands.choices[name].add_argument(
      "--compilation-cache",
      type=lambda given: given if given == "none" else paths.absolute(given),
      metavar="DIR",
      help="where to keep compiled programs for the next start; `none` keeps "
      "nothing; by default JAX_COMPILATION_CACHE_DIR if it is set, else "
      "~/.cache/byol-flax/compiled",
    )

  options, rest = parser.parse_known_args(argv)
  for flag, bound in BOUNDS.items():
    value = getattr(options, flag.removeprefix("--").replace("-", "_"), None)
    if value is not None:
      bounds.check(flag, value, bound)
  takes_config = options.command not in (
    "export",
    "features",
    "goodput",
    "import",
    "prepare",
  )
  for flag in rest:
    if takes_config and flag.startswith(("--config=", "--config.")):
      continue
    how = (
      "config flags are written --config=FILE and --config.key=value; "
      if takes_config
      else ""
    )
    parser.error(
      f"unknown argument {flag}; {how}see byol {options.command} --help"
    )
  return options, rest


def _add_train(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
  """Adds the command that pre-trains."""
  verb = add("train", "Pre-train, or resume in an existing workdir.")
  verb.add_argument(
    "--workdir",
    type=paths.absolute,
    required=True,
    help="folder of the run; made if absent",
  )
  verb.add_argument(
    "--restart",
    action="store_true",
    help="set an existing run in the workdir aside and begin anew",
  )
  weights = verb.add_mutually_exclusive_group()
  weights.add_argument(
    "--init",
    type=paths.absolute,
    metavar="WORKDIR[@STEP]|FILE",
    help="begin a new run with the weights of another one, by default of its "
    "newest checkpoint, or of a weight file: both networks with their heads, "
    "and BatchNorm's averages",
  )
  weights.add_argument(
    "--init-encoder",
    type=paths.absolute,
    metavar="WORKDIR[@STEP]|FILE",
    help="begin a new run with only the online encoder of another one, or of a "
    "weight file, in both networks; the heads begin anew",
  )
  weights.add_argument(
    "--continue",
    type=paths.absolute,
    metavar="WORKDIR[@STEP]|FILE",
    help="go on in a new run where another one, or a weight file, stopped: "
    "with momentum, step and schedules; the config must be the same",
  )
  encoder_flags.add_processes(verb)


def _add_measuring(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
  """Adds the commands that tell what a run takes."""
  verb = add(
    "preflight",
    "Compile the training step, or the programs of an evaluation, for a TPU "
    "slice, which need not be there, and tell whether they fit, how fast they "
    "can be, what the run costs and what to change. Exit code 0 if it fits, 3 "
    "if not.",
  )
  encoder_flags.add_encoder(verb, "; for the config of an evaluation only")
  verb.add_argument("--slice", required=True, help="such as v3-512")
  verb.add_argument(
    "--price", type=float, help="of one device and hour, in any currency"
  )
  verb.add_argument(
    "--fast",
    action="store_true",
    help="of pre-training: only guess, within a minute",
  )
  verb.add_argument(
    "--out",
    type=paths.absolute,
    default="preflight.json",
    help="JSON file to write",
  )
  verb = add(
    "goodput",
    "Tell where the time of a run went, over all its attempts: into updates, "
    "updates made twice, waiting, saving, evaluating, compiling, restarting.",
  )
  verb.add_argument(
    "--workdir",
    type=paths.absolute,
    required=True,
    help="folder of the run, which may be going on",
  )
  verb = add(
    "benchmark",
    "Measure on this machine: `step`, an update on images that lie on the "
    "devices already; `input`, every stage from the files to the devices; "
    "`checkpoint`, what a save costs.",
  )
  verb.add_argument("what", choices=("step", "input", "checkpoint"))
  verb.add_argument(
    "--updates", type=int, default=20, help="timed updates of `step`"
  )
  verb.add_argument(
    "--against-torch",
    action="store_true",
    help="of `step`: take turns with the same step in plain PyTorch (extra "
    "[bench])",
  )
  verb.add_argument(
    "--against-tf-data",
    action="store_true",
    help="of `input`: measure tf.data too, which only decodes, crops and "
    "resizes (extra [bench])",
  )
  verb.add_argument(
    "--evaluation",
    action="store_true",
    help="of `input`: measure how evaluations read, beside how training does",
  )
  verb.add_argument(
    "--image-size",
    metavar="WIDTHxHEIGHT",
    help="of `input`: measure synthetic photographs of that size, such as "
    "4000x3000",
  )
  verb.add_argument(
    "--out",
    type=paths.absolute,
    default="benchmark.json",
    help="JSON file to write",
  )


def _add_reproduce(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
  """Adds the command that runs a table of ablations."""
  verb = add(
    "reproduce",
    "Run the rows of one of the paper's ablations, several seeds each, and "
    "write a report beside the paper's numbers: DIR/TABLE.md, .json and .png. "
    "What was done before in the same folder is not done again.",
  )
  verb.epilog = (
    "--config.key=value overrides one value in all rows. "
    "configs/ablation_rows.py has the rows, and configs/scales.py the scales."
  )
  verb.add_argument(
    "table",
    metavar="TABLE",
    help="such as 5a, 16 or 3b, as the paper (arXiv v3) numbers it",
  )
  verb.add_argument(
    "--scale",
    default="digits",
    help="digits (default: minutes on a laptop), cifar10 or imagenet",
  )
  verb.add_argument(
    "--seeds", type=int, default=3, help="how many runs of each row"
  )
  verb.add_argument(
    "--workdir",
    type=paths.absolute,
    help="folder of the runs; several tables of a scale may share it, and then "
    "runs with the same settings",
  )
  verb.add_argument(
    "--dry-run",
    action="store_true",
    help="run nothing, and tell what each row changes and what it would take "
    "on a TPU slice",
  )
  verb.add_argument(
    "--slice",
    help="of --dry-run: such as v3-64, which is the default for imagenet",
  )
  verb.add_argument(
    "--price",
    type=float,
    help="of --dry-run: of one device and hour, in any currency",
  )
  encoder_flags.add_processes(verb)


def _add_prepare(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
  """Adds the command that takes no config."""
  verb = add(
    "prepare",
    "Write images of any kind into shards that training reads, in "
    "OUT/NAME/VERSION; after a kill the same command goes on where it stopped. "
    "SOURCE is a folder (its subfolders train, test and val are splits, other "
    "folders are classes), a list of files (.txt or .tsv: path, tab, class), "
    "or a tar file, which may hold tar files as ImageNet's does.",
  )
  verb.epilog = None
  verb.add_argument("source", type=paths.absolute, metavar="SOURCE")
  verb.add_argument(
    "out", type=paths.absolute, metavar="OUT", help="TFDS's data_dir"
  )
  verb.add_argument(
    "--name", help="of the data set; by default made from SOURCE"
  )
  verb.add_argument("--version", default="1.0.0", help="of the data set")
  verb.add_argument(
    "--split", default="train", help="of a source without splits"
  )
  verb.add_argument(
    "--labels",
    type=paths.absolute,
    help="file with one class a line, in the order of the images' names, or "
    "ImageNet's ILSVRC2012_devkit_t12.tar.gz",
  )
  verb.add_argument(
    "--longest-side",
    type=int,
    metavar="N",
    help="make larger images smaller, to N pixels on their longer side "
    "(Lanczos filter, JPEG of quality 95), for faster training",
  )
  verb.add_argument(
    "--keep-duplicates",
    action="store_true",
    help="also write images whose bytes came before; they are reported in any "
    "case",
  )
  verb.add_argument(
    "--against",
    type=paths.of_split,
    action="append",
    default=[],
    metavar="FOLDER:SPLIT",
    help="another prepared split; images that occur in both are reported",
  )
  verb.add_argument(
    "--workers",
    type=int,
    default=-1,
    help="how many processes; by default one per core",
  )
