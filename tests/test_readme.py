"""Every command in README.md runs as it is shown there, on small data."""

import contextlib
import io
import pathlib
import re
import shlex

import pytest

from byol_flax import main
from byol_flax.commands import command_line, config_file
from byol_flax.weights import npz
from tests import forks
from tests.input_pipeline.prepare.test_prepare import (
  WORDNET,
  development_kit,
  jpeg,
  tar,
  write,
)
from tests.runs import test_older_records
from tests.weights import made

# In one process of xdist, which makes the folder of data once.
pytestmark = pytest.mark.xdist_group("readme")

ROOT = pathlib.Path(__file__).parents[1]
BLOCKS = re.findall(
  r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S
)
COMMANDS = [
  line
  for language, text in BLOCKS
  for line in text.replace("\\\n", "").splitlines()
  if not language
]
PROGRAMS = [text for language, text in BLOCKS if language == "python"]

# Beginning of a command -> why it is not run here.
NOT_RUN = {
  "make demo": "installs; its two commands are in test_train.py, smaller",
  "make test": "runs this",
  "make quick": "runs this",
  "byol train --config=FILE": "shows what may be given",
  "byol train ... --coordinator": "is one of several; see test_preemption.py",
  "byol reproduce": "trains or compiles for minutes; see tests/reproduce",
  ".venv/bin/python -c": "downloads CIFAR-10",
}
# Beginning of a command -> why it is read as a command line, and no more.
ONLY_READ = {
  "byol preflight": "compiles for minutes; see test_preflight_*.py",
  "byol evaluate --encoder=weights/r50": "needs ImageNet",
  "byol evaluate --config=configs/segmentation.py": "needs VOC2012",
  "byol evaluate --config=configs/detection.py": "needs VOC2007",
  "byol evaluate --config=configs/depth.py": "needs NYU Depth v2",
}

# What README.md writes -> what stands in its place.
IN_PLACE = {"--suite=paper ": "--suite=paper:knn ", "/data/": "data/"}

# The smallest network, the same for all, so that it is compiled once, and two
# updates.
ONE_BLOCK = "basic:1:8:8"
SMALL = (
  f"--config.model.encoder.architecture={ONE_BLOCK}",
  "--config.model.encoder.width=1",
  "--config.model.encoder.stem=small",
  "--config.model.projector.hidden_size=16",
  "--config.model.projector.output_size=8",
  "--config.model.predictor.hidden_size=16",
  "--config.model.predictor.output_size=8",
  "--config.optimizer.weight_decay=1e-6",
  "--config.base_learning_rate=0.1",
  "--config.base_target_decay=0.99",
  "--config.augment.size=9",
  "--config.batch_size=8",
  "--config.warmup_epochs=0",
  "--config.loader.num_workers=0",
  "--config.evaluation.neighbours=1",
  "--config.evaluation.batch_size=8",
)
SMALL_MODEL = made.model_with(architecture=ONE_BLOCK, width=1.0, stem="small")
for head in ("projector", "predictor"):
  SMALL_MODEL[head].update(hidden_size=16, output_size=8)
APPENDED = {
  "train": SMALL,
  "prepare": ("--workers=1",),
}
# The weights with which it begins are those of the kept run.
LONGER = (
  "--config.model.encoder.architecture=resnet8",
  "--config.model.encoder.width=0.25",
)
EPOCHS = {"digits": 0.012}  # of 1,437 images; all other sets have 18


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
  """A folder with what the commands expect, none of it large."""
  folder = tmp_path_factory.mktemp("readme")
  (folder / "configs").symlink_to(ROOT / "configs")
  (folder / "runs").mkdir()
  test_older_records.unpack("format1_digits.tar.xz", folder / "runs")

  def images(root, first, count=18):
    return {
      f"{root}/{WORDNET[i % 3]}/{WORDNET[i % 3]}_{i}.JPEG": jpeg(first + i)
      for i in range(count)
    }

  pets = images("data/pets/train", 0) | images("data/pets/test", 100, 3)
  inner = {
    f"{name}.tar": tar(
      {
        path.rsplit("/", 1)[1]: data
        for path, data in images("", 0).items()
        if f"/{name}/" in path
      }
    )
    for name in WORDNET
  }
  valid = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(50 + i) for i in range(3)}
  write(
    folder,
    {
      **images("data/photos", 200),
      **pets,
      "ILSVRC2012_img_train.tar": tar(inner),
      "ILSVRC2012_img_val.tar": tar(valid),
      "ILSVRC2012_devkit_t12.tar.gz": development_kit([3, 1, 2]),
    },
  )
  # A format is told by what is in a file, so ours may stand for the authors'.
  npz.write(str(folder / "pretrain_res50x1.pkl"), made.weights(SMALL_MODEL))
  # As TFDS would leave it.
  run(folder, "byol prepare data/pets tensorflow_datasets --name=cifar10")
  return folder


def given(command):
  """The words of a command, its stand-ins in place and the rest appended."""
  for shown, instead in IN_PLACE.items():
    command = command.replace(shown, instead)
  program, what, *rest = shlex.split(command, comments=True)
  assert program == "byol"
  words = [what, *rest, *APPENDED.get(what, ())]
  if "linear.py" in command:
    words.append("--config.epochs=0.1")
  if "--init=runs/digits" in command:
    words.extend(LONGER)
  if what == "train":
    epochs = EPOCHS["digits"] if "digits" in command else 1.0
    words.append(f"--config.epochs={epochs}")
  return words


def run(folder, command):
  """What a command prints."""
  words = given(command)
  # These gather processes, which one process can do once.
  if words[0] in ("train", "evaluate", "features"):
    data = folder / "tensorflow_datasets"
    done = forks.byol(*words, cwd=folder, TFDS_DATA_DIR=str(data))
    assert done.returncode == 0, done.stderr
    return done.stderr
  output = io.StringIO()
  with contextlib.chdir(folder), contextlib.redirect_stdout(output):
    assert main.main(words) == 0
  return output.getvalue()


def begins(command, beginnings):
  return any(command.startswith(beginning) for beginning in beginnings)


def test_what_is_not_run_is_in_the_readme():
  for beginning in (*NOT_RUN, *ONLY_READ):
    assert begins(beginning, [c[: len(beginning)] for c in COMMANDS]), beginning
  assert len(COMMANDS) - len(NOT_RUN) - len(ONLY_READ) >= 11


@pytest.mark.slow
def test_every_command_runs_as_shown(scratch):
  for command in COMMANDS:
    if not begins(command, (*NOT_RUN, *ONLY_READ)):
      run(scratch, command)
  prepared = scratch / "data" / "tfds" / "imagenet2012" / "5.1.0"
  assert (prepared / "dataset_info.json").exists()
  assert sorted(path.name for path in (scratch / "runs").iterdir()) == [
    "cifar10", "digits", "digits-few-label", "digits-knn", "digits-linear",
    "digits-longer", "digits-paper", "digits-transfer", "mine", "pets",
    "photos", "photos.parquet", "prepared-pets", "r50",
  ]  # fmt: skip
  # "With `folder:` in place of `unlabelled:` the top folders are classes."
  (photos,) = (c for c in COMMANDS if "train" in c and "=runs/photos" in c)
  photos = photos.replace("unlabelled:", "folder:")
  said = run(scratch, photos.replace("=runs/photos", "=runs/classes"))
  assert "18 images" in said
  assert "3 classes" in said
  assert "input of evaluations: none, because data.split=all takes" in said


@pytest.mark.slow
def test_programs_run_as_shown(scratch, capsys):
  for program in PROGRAMS:
    with contextlib.chdir(scratch):
      exec(program, {})
  features = capsys.readouterr().out
  assert features.count("[") == 1 + 4  # a matrix of four rows


@pytest.mark.parametrize(
  "command", [c for c in COMMANDS if begins(c, ONLY_READ)]
)
def test_the_rest_can_be_read(command):
  _, configs = command_line.parse_command(given(command))
  config_file.load_config(configs)
