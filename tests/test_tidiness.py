"""Rules about text that no linter knows. Each finding is one sentence."""

import ast
import functools
import os
import pathlib
import re
from collections.abc import Iterator

import pytest

# In one process of xdist, which parses each file once.
pytestmark = pytest.mark.xdist_group("tidiness")

ROOT = pathlib.Path(__file__).parents[1]
CODE = ("byol_flax", "configs", "input_pipeline", "launch", "tests")
NOT_OURS = {".git", ".venv", "build", "dist", "__pycache__"}

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 80
MOST_LINES_OF_A_SETUP = 150
SETUP_FUNCTIONS = {"build", "get_config", "main", "train"}

EMPTY_NAMES = {"utils", "helpers", "misc", "base", "common"}
SOURCE_SUFFIXES = {".cfg", ".md", ".py", ".sh", ".toml", ".tsv", ".yml", ""}

# Written so that neither pattern matches its own source.
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~/})-])/(?:work|root|home/[\w.-]+)/")

# Numbers of the paper or of ImageNet, each at home in few places.
PAPER_NUMBERS = (4096, 1_281_167, 0.485)
HOMES_OF_NUMBERS = (
  "configs/",
  "byol_flax/models/pixels.py",
  "input_pipeline/sources.py",
  "input_pipeline/known_sets.py",
  "tests/",
)

SHAPES_STATED_IN = (
  "byol_flax/pretrain/losses.py",
  "byol_flax/pretrain/metrics.py",
  "byol_flax/pretrain/optimizers.py",
  "input_pipeline/image_ops.py",
)
ARRAY = re.compile(r"Array(?:Like)?\b|ndarray\b")
# [B, D], [..., D], [] but not a range of numbers such as [0, 1].
SIZE = r"[\w.…*/+-]+"
SHAPE = re.compile(
  rf"\[(?=\]|[^\]]*(?:[A-Za-z…]|\.\.\.))(?:{SIZE}(?:, ?{SIZE})*)?\]"
)

QUOTED = re.compile(r"`+([^`]+)`+")
# A path from the top of the repository, whole: no pattern, no placeholder.
REPOSITORY_PATH = re.compile(
  r"(?<![\w./@:-])(?:\./)?"
  r"((?:byol_flax|configs|input_pipeline|launch|tests|\.ci)/[\w./-]*\w"
  r"|[A-Za-z_]+\.(?:md|toml))"
  r"(?![\w*<>{}$\[?])"
)


# At the top; the package has a room named runs, too.
LEFT_BY_COMMANDS = ("runs", "preflight.json", "benchmark.json")


def texts(root: pathlib.Path) -> Iterator[tuple[str, str]]:
  """(path from `root`, contents) of every text file that is ours."""
  for folder, folders, files in os.walk(root):
    left = LEFT_BY_COMMANDS if pathlib.Path(folder) == root else ()
    folders[:] = sorted(x for x in folders if is_ours(x) and x not in left)
    files = sorted(x for x in files if x not in left)
    for path in (pathlib.Path(folder) / name for name in files):
      contents = path.read_bytes() if is_ours(path.name) else b"\0"
      if b"\0" not in contents:
        name = path.relative_to(root).as_posix()
        yield name, contents.decode(errors="replace")


def is_ours(name: str) -> bool:
  """Whether a file or folder of that name is part of the repository."""
  return name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))


def trees(root: pathlib.Path) -> Iterator[tuple[str, ast.Module]]:
  """(path from `root`, syntax tree) of every Python file that is ours."""
  for name, text in texts(root):
    if name.endswith(".py"):
      yield name, parsed(text)


@functools.cache
def parsed(text: str) -> ast.Module:
  return ast.parse(text)


@pytest.fixture(scope="module", autouse=True)
def parse_once():
  """A hundred megabytes of syntax trees stay for these tests only."""
  yield
  parsed.cache_clear()


def long_files(root):
  for name, text in texts(root):
    lines = len(text.splitlines())
    if name.endswith(".py") and lines > MOST_LINES_OF_A_FILE:
      yield f"{name} has {lines} lines"


def long_functions(root):
  for name, tree in trees(root):
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        lines = (node.end_lineno or 0) - node.lineno + 1
        is_setup = node.name in SETUP_FUNCTIONS
        most = MOST_LINES_OF_A_SETUP if is_setup else MOST_LINES_OF_A_FUNCTION
        if lines > most:
          yield f"{name}: {node.name} has {lines} lines"


def empty_names(root):
  for name, _ in texts(root):
    parts = {pathlib.PurePath(part).stem for part in name.split("/")}
    if parts & EMPTY_NAMES and name != "configs/common.py":
      yield f"{name} does not say what it holds"


def relative_imports(root):
  for name, tree in trees(root):
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom) and node.level:
        yield f"{name}:{node.lineno} imports from {'.' * node.level}"


def unfinished(root):
  for name, text in texts(root):
    if pathlib.PurePath(name).suffix in SOURCE_SUFFIXES:
      for number, line in enumerate(text.splitlines(), 1):
        if found := UNFINISHED.search(line):
          yield f"{name}:{number} holds {found.group()}"


def machine_paths(root):
  for name, text in texts(root):
    for number, line in enumerate(text.splitlines(), 1):
      if found := MACHINE_PATH.search(line):
        yield f"{name}:{number} names {found.group()}, a path of one machine"


def hidden_defaults(root):
  """A default at the place of use: `config.get("epochs", 100)`."""
  for name, tree in trees(root):
    if not name.startswith(("byol_flax/", "input_pipeline/")):
      continue
    for node in ast.walk(tree):
      match node:
        case ast.Call(func=ast.Attribute(value=owner, attr="get")):
          has_default = len(node.args) + len(node.keywords) > 1
          if has_default and "config" in ast.unparse(owner).lower():
            yield f"{name}:{node.lineno} hides a default: {ast.unparse(node)}"


def unstated_shapes(root):
  for name, tree in trees(root):
    if name not in SHAPES_STATED_IN:
      continue
    for node in tree.body:
      if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
        continue
      takes_arrays = ARRAY.search(ast.unparse(node.args))
      if takes_arrays and not SHAPE.search(ast.get_docstring(node) or ""):
        yield f"{name}: {node.name} states no shape such as [B, D]"


def stray_numbers(root):
  for name, tree in trees(root):
    if name.startswith(HOMES_OF_NUMBERS):
      continue
    for node in ast.walk(tree):
      if isinstance(node, ast.Constant) and node.value in PAPER_NUMBERS:
        yield f"{name}:{node.lineno} repeats {node.value}; take it from configs"


def second_loops(root):
  """Every `for step in` of byol_flax when there are more than one."""
  found = []
  for name, tree in trees(root):
    if not name.startswith("byol_flax/") or "benchmarks" in name:
      continue
    for node in ast.walk(tree):
      match node:
        case ast.For(target=ast.Name(id="step")):
          found.append(f"{name}:{node.lineno} loops over steps")
        case ast.comprehension(target=ast.Name(id="step")):
          found.append(f"{name}:{node.target.lineno} loops over steps")
  return found if len(found) > 1 else []


def dead_paths(root):
  for document in ("BUILD_NOTES.md", "README.md"):
    if not (root / document).exists():
      continue
    for span in QUOTED.findall((root / document).read_text()):
      for path in REPOSITORY_PATH.findall(span):
        if not (root / path).exists():
          yield f"{document} quotes {path}, which does not exist"


CHECKS = (
  long_files,
  long_functions,
  empty_names,
  relative_imports,
  unfinished,
  machine_paths,
  hidden_defaults,
  unstated_shapes,
  stray_numbers,
  second_loops,
  dead_paths,
)


@pytest.mark.parametrize("check", CHECKS)
def test_this_repository_is_tidy(check):
  found = list(check(ROOT))
  assert not found, "\n".join(["", *found])


def seed(root, files):
  """Writes a small repository: {path: text}."""
  for path, text in files.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def lines_of_function(name, lines):
  return f"def {name}():\n" + "  pass\n" * (lines - 1)


HOME = "/".join(["", "home", "ada", "data"])
DOCUMENT = """
Run `byol train --config=configs/byol.py:epochs=100`; see `Makefile` and
`runs/digits/metrics.jsonl`, `haiku/byol_flax/x.py`, `configs/byol_*.py`,
`config.json`, `https://example.org/tests/x.py` and `README.md`.
"""


def test_a_tidy_repository_passes(tmp_path):
  seed(
    tmp_path,
    {
      "README.md": DOCUMENT,
      "configs/byol.py": "batch_size = 4096\nmean = 0.485\n" + "\n" * 398,
      "configs/common.py": lines_of_function("get_config", 150),
      "byol_flax/pretrain/train.py": lines_of_function("step", 80)
      + "for step in (1, 2): config.get('a')\n",
      "byol_flax/pretrain/losses.py": "def f(x: jax.Array):\n"
      "  '''Of x [..., D].'''\n"
      "def g(n: int): return n\n"
      "def h(x: np.ndarray):\n  '''A scalar [].'''\n"
      "def _i(x: np.ndarray): return x\n",
      "byol_flax/benchmarks/step.py": "for step in (1, 2): pass",
      "launch/worker.sh": "cd $HOME/work/x ${A}/work/; cat https://a.org/root/",
      "runs/a.txt": HOME,
      ".venv/utils.py": "from . import a",
      "tests/goldens/a.npz": "\0" + HOME,
    },
  )
  assert [found for check in CHECKS for found in check(tmp_path)] == []


@pytest.mark.parametrize(
  ("check", "path", "text"),
  [
    (long_files, "configs/byol.py", "a = 1\n" * 401),
    (long_functions, "tests/test_a.py", lines_of_function("f", 81)),
    (
      long_functions,
      "byol_flax/pretrain/train.py",
      lines_of_function("train", 151),
    ),
    (empty_names, "byol_flax/utils.py", ""),
    (empty_names, "byol_flax/base/loss.py", ""),
    (empty_names, "byol_flax/common.py", ""),
    (relative_imports, "byol_flax/runs/loop.py", "from . import trees"),
    (unfinished, "launch/worker.sh", "# TO" + "DO: retry"),
    (unfinished, "Makefile", "# FIX" + "ME(ada)"),
    (machine_paths, "launch/README.md", f"cd {HOME}"),
    (machine_paths, "pyproject.toml", 'a = "/wo' + 'rk/main/x"'),
    (machine_paths, ".ci/run", "PATH=/ro" + "ot/bin"),
    (
      hidden_defaults,
      "byol_flax/pretrain/train.py",
      "config.model.get('depth', 50)",
    ),
    (hidden_defaults, "byol_flax/a.py", "self._config.get('a', default=1)"),
    (
      unstated_shapes,
      "byol_flax/pretrain/losses.py",
      "def f(x: jax.Array):\n  '''Halves x in [0, 1].'''",
    ),
    (
      unstated_shapes,
      "input_pipeline/image_ops.py",
      "def f(*x: np.ndarray): 1",
    ),
    (stray_numbers, "byol_flax/models/heads.py", "def f(size=4096): pass"),
    (stray_numbers, "byol_flax/pretrain/train.py", "images = 1281167"),
    (stray_numbers, "input_pipeline/augment.py", "mean = (0.485, 0.456)"),
    (second_loops, "byol_flax/runs/loop.py", "for step in a: pass\n" * 2),
    (second_loops, "byol_flax/a.py", "for step in a: [step for step in b]"),
    (dead_paths, "README.md", "See `byol_flax/gone.py`."),
    (
      dead_paths,
      "README.md",
      "```\nbyol train --config=configs/gone.py:a\n```",
    ),
    (dead_paths, "BUILD_NOTES.md", "`tests/test_gone.py::test_a`"),
    (dead_paths, "BUILD_NOTES.md", "`NOTES.md`"),
  ],
)
def test_a_seeded_violation_is_found(tmp_path, check, path, text):
  seed(tmp_path, {path: text})
  assert len(list(check(tmp_path))) >= 1
