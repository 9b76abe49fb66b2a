"""`~` and relative paths, of every command and config, are made whole once."""

import os

import pytest

from byol_flax.bounds import DataSet, Path
from byol_flax.commands import command_line, config_bounds, config_file
from configs import byol, few_label
from input_pipeline import paths
from input_pipeline.prepare import collecting
from tests.commands.test_config_bounds import CONFIGS
from tests.input_pipeline.prepare.test_prepare import jpeg, write


@pytest.fixture
def home(tmp_path, monkeypatch):
  (tmp_path / "home").mkdir()
  (tmp_path / "here").mkdir()
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.chdir(tmp_path / "here")
  return tmp_path / "home"


def test_options_of_every_command(home):
  here = home.parent / "here"
  for words, found in (
    (["train", "--workdir=~/run"], {"workdir": f"{home}/run"}),
    (["train", "--workdir=run/"], {"workdir": f"{here}/run"}),
    (["train", "--workdir=gs://b/~/run"], {"workdir": "gs://b/~/run"}),
    (["evaluate", "--workdir=~/run"], {"workdir": f"{home}/run"}),
    (
      ["evaluate", "--workdir=x", "--encoder=~/run@7"],
      {"encoder": f"{home}/run@7"},
    ),
    (
      ["evaluate", "--workdir=x", "--encoder=random:byol.py"],
      {"encoder": "random:byol.py"},
    ),
    (
      ["train", "--workdir=x", "--compilation-cache=~/c"],
      {"compilation_cache": f"{home}/c"},
    ),
    (
      ["evaluate", "--workdir=x", "--compilation-cache=none"],
      {"compilation_cache": "none"},
    ),
    (
      ["features", "--data=folder:x", "--out=~/a", "--data-dir=d"],
      {"data": f"folder:{here}/x", "out": f"{home}/a", "data_dir": f"{here}/d"},
    ),
    (["views", "--out=~/a.png"], {"out": f"{home}/a.png"}),
    (["views"], {"out": f"{here}/views.png"}),
    (["preflight", "--slice=x", "--out=~/a"], {"out": f"{home}/a"}),
    (["benchmark", "step", "--out=~/a"], {"out": f"{home}/a"}),
    (
      ["prepare", "~/s", "~/o", "--labels=~/l.txt", "--against=~/x/1.0.0:test"],
      {
        "source": f"{home}/s",
        "out": f"{home}/o",
        "labels": f"{home}/l.txt",
        "against": [f"{home}/x/1.0.0:test"],
      },
    ),
  ):
    options, _ = command_line.parse_command(words)
    assert found.items() <= vars(options).items()


def test_a_user_is_known_by_name(home):
  user = os.path.expanduser("~root")
  assert paths.absolute("~root/run") == f"{user}/run"


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("folder:~/pets", "folder:{home}/pets"),
    ("unlabelled:pets", "unlabelled:{here}/pets"),
    ("folder:gs://bucket/pets", "folder:gs://bucket/pets"),
    ("voc:~/VOC2007", "voc:{home}/VOC2007"),
    ("cifar10:3.0.2", "cifar10:3.0.2"),
    ("voc:4.0.0", "voc:4.0.0"),
    ("imagenette/160px-v2:1.*.*", "imagenette/160px-v2:1.*.*"),
    ("digits", "digits"),
    ("folder:", "folder:"),
  ],
)
def test_names_of_data_sets(home, name, expected):
  expected = expected.format(home=home, here=home.parent / "here")
  config = config_file.load_config(
    [
      f"--config={CONFIGS}/byol.py",
      f"--config.data.name={name}",
      "--config.loader.data_dir=~/tfds",
    ]
  )
  assert config.data.name == expected
  assert config.loader.data_dir == f"{home}/tfds"
  config = config_file.load_config(
    [f"--config={CONFIGS}/evaluate.py", f"--config.data_name={name}"]
  )
  assert config.data_name == expected


def test_a_config_in_the_home_folder(home):
  (home / "mine.py").write_text((CONFIGS / "byol.py").read_text())
  config = config_file.load_config(["--config=~/mine.py:epochs=100"])
  assert config.epochs == 100


def test_keys_that_hold_paths_are_marked_so():
  for module, rows in (
    (byol, config_bounds.RUN),
    (few_label, config_bounds.PROTOCOLS["few_label"]),
  ):
    keys = config_bounds.leaves(module.get_config().to_dict())
    held = {key for key in keys if key.endswith(("name", "dir", "path"))}
    assert held == {
      key for key in rows if isinstance(rows[key], Path | DataSet)
    }


def test_a_list_names_files_of_the_home_folder(home):
  write(home, {"photos/1.jpg": jpeg(0), "2.jpg": jpeg(1), "~3.jpg": jpeg(2)})
  (home / "list.txt").write_text("~/photos/1.jpg\n2.jpg\n~3.jpg\n")
  found = collecting.collect(str(home / "list.txt"), "train").splits["train"]
  assert {item.path for item in found} == {
    f"{home}/photos/1.jpg",
    f"{home}/2.jpg",
    f"{home}/~3.jpg",
  }
