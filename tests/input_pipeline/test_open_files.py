"""Files that stay open do not grow beyond what a process may have."""

import subprocess
import sys

import pytest

from tests.input_pipeline.prepare.test_prepare import jpeg, write
from tests.trainers import ROOT

IMAGES = 60
# A block, and a shard, for each image.
PROGRAM = """
import resource, sys

from byol_flax import main
from input_pipeline import sources
from input_pipeline.errors import UsageError
from input_pipeline.prepare import shards
folder, out, *limits = sys.argv[1:]
limits = [int(limit) for limit in limits]
shards._BLOCK = shards._SHARD_BYTES = 1
resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0], limits[1]))
main.main(["prepare", folder, out, "--name=many", "--workers=1"])
try:
  source = sources.open_source("many", "train", out)
except UsageError as error:
  sys.exit(str(error))
print(sum(len(source[i]["image"]) > 0 for i in range(len(source))))
"""


def run(*words):
  return subprocess.run(
    [sys.executable, "-c", PROGRAM, *map(str, words)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_more_blocks_and_shards_than_files_that_may_be_open(tmp_path):
  """939a972 kept a file open for every block that it had looked at."""
  folder = write(
    tmp_path / "many", {f"{i}.jpg": jpeg(i) for i in range(IMAGES)}
  )
  done = run(folder, tmp_path / "out", 40, 1024)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == str(IMAGES)
  shards = list((tmp_path / "out").rglob("*array_record*"))
  assert len(shards) == IMAGES
  done = run(folder, tmp_path / "out", 40, 100)
  assert done.returncode == 1
  assert "The shards of many are 60 files" in done.stderr
  assert "no more than 100" in done.stderr
