"""Imports point one way, heavy packages have one home, all are declared."""

import ast
import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("configs", "input_pipeline", "byol_flax")

# A module imports only from rows above its own. An entry that is a package
# stands for all its modules, which may import each other.
ROWS = (
  "configs",
  "input_pipeline",
  "byol_flax.bounds byol_flax.trees byol_flax.sharding byol_flax.slices",
  "byol_flax.models",
  "byol_flax.runs byol_flax.reports",
  "byol_flax.weights",
  "byol_flax.pretrain",
  "byol_flax.evaluation",
  "byol_flax.benchmarks",
  "byol_flax.preflight",
  "byol_flax.reproduce",
  "byol_flax.commands",
  "byol_flax.main byol_flax.api",
)
# What the top package brings when it is asked for one of its names.
FRONT = "byol_flax.api"
ROW_OF = {entry: row for row, text in enumerate(ROWS) for entry in text.split()}

# What may be imported in a few places only, and those places.
HOMES = {
  "PIL": "byol_flax.reports input_pipeline.decoding"
  " input_pipeline.jpeg input_pipeline.mask_files input_pipeline.other_formats"
  " input_pipeline.prepare.shrinking",
  "absl": "byol_flax.commands.config_file byol_flax.commands.libraries",
  "array_record": "input_pipeline.prepare.array_records"
  " input_pipeline.read_ahead",
  "clu": "byol_flax.runs.tensorboard_files",
  "configs": "configs",
  "flax": "byol_flax",
  "grain": "input_pipeline",
  "h5py": "input_pipeline.nyu",
  "jax": "byol_flax",
  "matplotlib": "byol_flax.reports",
  "ml_collections": "configs byol_flax.commands.config_file",
  "numba": "input_pipeline.loops",
  "optax": "byol_flax",
  "orbax": "byol_flax.runs.checkpoint byol_flax.runs.checkpoint_manager",
  "pillow_heif": "input_pipeline.other_formats",
  "pyarrow": "byol_flax.evaluation.feature_files",
  "safetensors": "byol_flax.weights.safetensors_files"
  " byol_flax.weights.torch_resnet"
  " byol_flax.weights.other_sides",
  "simplejpeg": "input_pipeline.jpeg",
  "tensorboard": "byol_flax.runs.tensorboard_files",
  "tensorflow": "byol_flax.benchmarks.tf_data",
  "tensorflow_datasets": "input_pipeline.tfds_sources"
  " input_pipeline.tfds_metadata",
  "torchvision": "byol_flax.weights.other_sides",
  "transformers": "byol_flax.weights.other_sides",
  "torch": "byol_flax.benchmarks.torch_byol byol_flax.weights.torch_resnet"
  " byol_flax.weights.other_sides",
}

# What ours is measured against: only benchmarks may know it.
YARDSTICKS = "byol_flax.benchmarks.torch_byol byol_flax.benchmarks.tf_data"

# Import names whose distribution is called something else.
DISTRIBUTIONS = {
  "PIL": "pillow",
  "absl": "absl-py",
  "cv2": "opencv-python-headless",
  "faiss": "faiss-cpu",
  "orbax": "orbax-checkpoint",
  "sklearn": "scikit-learn",
  "yaml": "PyYAML",
  "tensorflow": "tensorflow-cpu",
}


def is_within(module, entry):
  """Whether `module` is `entry` or lies in that package."""
  return f"{module}.".startswith(f"{entry}.")


def entry_of(module):
  """The entry of ROWS that stands for `module`; None if there is none."""
  return next((entry for entry in ROW_OF if is_within(module, entry)), None)


def imports_of(path):
  """Full names of what a file imports, wherever in the file it does so."""
  for node in ast.walk(ast.parse(path.read_text())):
    match node:
      case ast.Import():
        yield from (alias.name for alias in node.names)
      case ast.ImportFrom(level=0):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
      case ast.Call(
        func=ast.Name(id=function) | ast.Attribute(attr=function),
        args=[ast.Constant(value=str(name)), *_],
      ) if function in ("import_module", "__import__", "importorskip"):
        yield name


def modules_of(root):
  """(dotted name, path) of every module of our packages."""
  for package in PACKAGES:
    for path in sorted((root / package).rglob("*.py")):
      dotted = ".".join(path.relative_to(root).with_suffix("").parts)
      yield dotted.removesuffix(".__init__"), path


def wrong_direction(root):
  """One sentence for each import that does not point to a row above."""
  for module, path in modules_of(root):
    mine = entry_of(module)
    if mine is None and module not in PACKAGES:
      yield f"{module} is in no row of ROWS"
      continue
    for name in imports_of(path):
      if name.split(".")[0] not in PACKAGES:
        continue
      theirs = entry_of(name)
      if theirs is None:
        yield f"{module} imports {name}, which is in no row of ROWS"
      elif mine is None and theirs != FRONT:
        yield f"{module} imports {name}, but a top package imports nothing"
      elif mine is None:
        continue
      elif theirs != mine and ROW_OF[theirs] >= ROW_OF[mine]:
        yield f"{module} imports {name}, which is not in a row above its own"


def away_from_home(root):
  """One sentence for each import of a package outside its home."""
  for module, path in modules_of(root):
    for name in imports_of(path):
      homes = HOMES.get(name.split(".")[0])
      if homes is None:
        continue
      if not any(is_within(module, home) for home in homes.split()):
        yield f"{module} imports {name}, at home in {homes or 'no module'}"


def yardsticks_elsewhere(root):
  """One sentence for each import of a yardstick outside the benchmarks."""
  for module, path in modules_of(root):
    for name in imports_of(path):
      known = any(
        is_within(name, yardstick) for yardstick in YARDSTICKS.split()
      )
      if known and not is_within(module, "byol_flax.benchmarks"):
        yield f"{module} imports {name}, a yardstick of the benchmarks"


def undeclared(root):
  """One sentence for each import that pyproject.toml does not declare."""
  project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
  extras = project.get("optional-dependencies", {})
  shipped = [r for name, rs in extras.items() if name != "dev" for r in rs]
  for_users = distributions(project["dependencies"] + shipped)
  for_tests = for_users | distributions(extras.get("dev", []))
  tests = [
    (f"tests/{path.name}", path) for path in (root / "tests").rglob("*.py")
  ]
  ours = {*PACKAGES, "launch", "tests", *(path.stem for _, path in tests)}
  for declared, files in ((for_users, modules_of(root)), (for_tests, tests)):
    for module, path in files:
      for package in {name.split(".")[0] for name in imports_of(path)}:
        known = package in sys.stdlib_module_names or package in ours
        if not known and distribution_of(package) not in declared:
          yield f"{module} imports {package}, undeclared in pyproject.toml"


def launcher_needs_more(root):
  """One sentence for what a laptop with a plain Python 3.9 cannot run."""
  for path in sorted((root / "launch").rglob("*.py")):
    where = path.relative_to(root).as_posix()
    try:
      ast.parse(path.read_text(), feature_version=(3, 9))
    except SyntaxError as error:
      yield f"{where} is no Python 3.9: {error}"
      continue
    for name in imports_of(path):
      package = name.split(".")[0]
      if package != "launch" and package not in sys.stdlib_module_names:
        yield f"{where} imports {package}; launch/ has the standard library"


def distributions(requirements):
  """Normalized names of distributions: "A_b[c]>=1" becomes "a-b"."""
  names = (re.match(r"[\w.-]+", text).group() for text in requirements)
  return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def distribution_of(package):
  """Normalized name of the distribution that brings an import name."""
  (name,) = distributions([DISTRIBUTIONS.get(package, package)])
  return name


CHECKS = (
  wrong_direction,
  away_from_home,
  yardsticks_elsewhere,
  undeclared,
  launcher_needs_more,
)


@pytest.mark.parametrize("check", CHECKS)
def test_imports_of_this_repository(check):
  found = sorted(check(ROOT))
  assert not found, "\n".join(["", *found])


PROJECT = """
[project]
dependencies = ["jax>=0.10", "ml_collections>=1.0,<2", "pillow", "grain"]
[project.optional-dependencies]
preflight = ["libtpu==0.0.42"]
dev = ["pytest>=8"]
"""


def seed(root, files):
  """Writes a small repository: {path: text}."""
  for path, text in {"pyproject.toml": PROJECT, **files}.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def findings(root):
  return [finding for check in CHECKS for finding in check(root)]


def test_a_sound_repository_passes(tmp_path):
  seed(
    tmp_path,
    {
      "byol_flax/__init__.py": "from byol_flax.api import load_encoder",
      "byol_flax/main.py": "from byol_flax.commands import config_file",
      "byol_flax/commands/config_file.py": "import ml_collections",
      "byol_flax/pretrain/train.py": "import os\nfrom byol_flax import trees\n"
      "from byol_flax.runs import loop\nfrom byol_flax.pretrain import losses",
      "byol_flax/runs/loop.py": "from input_pipeline.errors import UsageError",
      "byol_flax/preflight.py": "def f():\n  import libtpu",
      "byol_flax/models/byol.py": "from byol_flax.models import heads",
      "byol_flax/models/heads.py": "import jax.numpy as jnp",
      "input_pipeline/decoding.py": "from PIL import Image",
      "configs/byol.py": "from configs import common\nimport ml_collections",
      "launch/controller/loop.py": "import os\nfrom launch import controller",
      "tests/test_a.py": "import pytest, conftest\nfrom configs import byol",
      "tests/conftest.py": "import jax",
    },
  )
  assert findings(tmp_path) == []


@pytest.mark.parametrize(
  ("path", "source", "finding"),
  [
    (
      "byol_flax/pretrain/losses.py",
      "from byol_flax.evaluation import knn",
      "a row above",
    ),
    (
      "byol_flax/reports/views.py",
      "import byol_flax.runs.loop",
      "a row above",
    ),
    (
      "byol_flax/runs/loop.py",
      "def f():\n  import byol_flax.main",
      "a row above",
    ),
    (
      "input_pipeline/augment.py",
      "from byol_flax.trees import mask",
      "a row above",
    ),
    (
      "byol_flax/models/resnet.py",
      "import importlib\nimportlib.import_module('byol_flax.pretrain.train')",
      "a row above",
    ),
    ("byol_flax/stray.py", "", "stray is in no row"),
    (
      "byol_flax/runs/loop.py",
      "from byol_flax import stray",
      "stray, which is in",
    ),
    ("byol_flax/__init__.py", "from byol_flax import runs", "imports nothing"),
    ("input_pipeline/sources.py", "import jax.numpy", "at home in byol_flax"),
    (
      "byol_flax/pretrain/train.py",
      "import ml_collections",
      "at home in configs",
    ),
    ("byol_flax/main.py", "import configs.byol", "at home in configs"),
    (
      "byol_flax/runs/metrics_log.py",
      "import tensorflow",
      "at home in byol_flax.benchmarks.tf_data",
    ),
    (
      "input_pipeline/sources.py",
      "import tensorflow_datasets as tfds",
      "at home in input_pipeline.tfds_sources",
    ),
    (
      "byol_flax/commands/benchmark.py",
      "from byol_flax.benchmarks import torch_byol",
      "a yardstick of the benchmarks",
    ),
    ("byol_flax/trees.py", "import torch", "torch, undeclared"),
    ("byol_flax/trees.py", "import pytest", "pytest, undeclared"),
    ("byol_flax/slices.py", "from sklearn import svm", "sklearn, undeclared"),
    ("tests/test_a.py", "import chex", "tests/test_a.py imports chex"),
    ("launch/controller/loop.py", "from configs import byol", "the standard"),
    ("launch/controller/loop.py", "match a:\n  case 1: pass", "no Python 3.9"),
  ],
)
def test_a_seeded_violation_is_found(tmp_path, path, source, finding):
  seed(tmp_path, {path: source})
  assert any(finding in found for found in findings(tmp_path))
