"""Lines reach their file by time and at each flush, in order, or are told."""

import contextlib
import errno
import threading
import time

import pytest

from byol_flax.runs import line_writer
from tests.runs.test_metrics_log import run_python

NEVER = 1e6  # seconds


@pytest.fixture
def make_writer(tmp_path):
  """Yields how to make a writer of `tmp_path/lines`; its thread must end."""
  before = set(threading.enumerate())
  made = []

  def make(seconds):
    made.append(line_writer.LineWriter(tmp_path / "lines", seconds))
    return made[-1]

  yield make
  for writer in made:
    with contextlib.suppress(OSError):
      writer.close()
  assert set(threading.enumerate()) <= before


def wait_for(condition):
  deadline = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def numbered(count):
  return [f"line {k}" for k in range(count)]


def test_lines_come_by_time(tmp_path, make_writer):
  writer, path = make_writer(0.02), tmp_path / "lines"
  for line in numbered(100):
    writer.write(line)
  wait_for(lambda: path.exists() and path.read_text().count("\n") == 100)
  assert path.read_text().splitlines() == numbered(100)


def test_lines_wait_for_their_time_or_a_flush(tmp_path, make_writer):
  writer, path = make_writer(NEVER), tmp_path / "lines"
  for line in numbered(100):
    writer.write(line)
  assert not path.exists()
  writer.flush()
  assert path.read_text().splitlines() == numbered(100)
  writer.write("last")
  writer.close()
  writer.close()
  assert path.read_text().splitlines() == [*numbered(100), "last"]


def test_no_line_is_lost_or_turned_where_threads_meet(tmp_path, make_writer):
  writer = make_writer(1e-4)
  for k, line in enumerate(numbered(3000)):
    writer.write(line)
    if k % 100 == 0:
      writer.flush()
  writer.close()
  assert (tmp_path / "lines").read_text().splitlines() == numbered(3000)


def test_what_waits_is_bounded(tmp_path, make_writer, monkeypatch):
  monkeypatch.setattr(line_writer, "_MOST_LINES", 5)
  writer = make_writer(NEVER)
  for line in numbered(12):
    writer.write(line)
  assert (tmp_path / "lines").read_text().splitlines() == numbered(10)


def test_an_error_of_the_thread_is_raised_by_every_call(tmp_path, make_writer):
  (tmp_path / "lines").symlink_to("/dev/full")
  writer = make_writer(0.02)
  writer.write("lost")

  def fails():
    try:
      writer.write("lost too")
    except OSError as error:
      return error.errno == errno.ENOSPC
    return False

  wait_for(fails)
  # There is room again, but a line may be torn: none must come after it.
  (tmp_path / "lines").unlink()
  for call in (lambda: writer.write("more"), writer.flush, writer.close):
    with pytest.raises(OSError, match="No space left"):
      call()
  assert not (tmp_path / "lines").exists()


@pytest.mark.parametrize(
  ("path", "seconds"),
  [
    ("gs://bucket/run", 30),
    ("/mnt/bucket/run", 30),
    ("/data/run", 1),
  ],
)
def test_buckets_are_written_to_less_often(path, seconds):
  mounts = "my-bucket /mnt/bucket fuse.gcsfuse rw 0 0\n"
  assert line_writer.seconds_between(path, mounts) == seconds


IN_A_BUCKET = """
import sys
import time
sys.modules["tensorflow"] = None  # so that gs:// is read by fsspec
import fsspec
from etils import epath
from fsspec.implementations import memory
from byol_flax.runs.metrics_log import MetricsLog
from byol_flax.runs.start_clock import StartClock
from byol_flax.runs.time_spent import Attempt

written, failed = [], []

class Bucket(memory.MemoryFileSystem):
  protocol = ("gcs", "gs")

  def _open(self, path, mode="rb", **options):
    if mode != "rb" and path not in failed:  # at first it does not answer
      failed.append(path)
      raise ConnectionResetError("Connection reset by peer")
    if mode != "rb":
      written.append(path.split("/")[-1])
    return super()._open(path, mode.replace("a", "w"), **options)  # as gcsfs

fsspec.register_implementation("gcs", Bucket, clobber=True)
for resumed in (0, 50):
  attempt = Attempt(
    "gs://b/run", step=resumed, batch_size=1, about={}, writes=True,
    start_clock=StartClock(time.monotonic()),
  )
  with attempt, MetricsLog(
    "gs://b/run", writes=True, resume_step=resumed
  ) as run:
    for step in range(resumed + 1, resumed + 101):
      run.scalars(step, {"a": 1.0}, kind="update")
      if step % 40 == 0:
        run.flush()
    count = written.count("metrics.jsonl")
  print(count, written.count("metrics.jsonl"), run.note.split(",")[0])
for name in ("metrics", "starts"):
  lines = epath.Path(f"gs://b/run/{name}.jsonl").read_text().splitlines()
  print([eval(line)["step"] for line in lines])
print(sorted(failed))
"""


@pytest.mark.slow
def test_in_a_bucket_the_file_is_written_at_each_flush_only():
  told, _ = run_python(IN_A_BUCKET)
  left_out = "TensorBoard's files are left out"
  first, second, metrics, starts, failed = told.splitlines()
  assert first == f"2 3 {left_out}"
  assert second == f"5 6 {left_out}"
  assert metrics == str(list(range(1, 151)))
  assert starts == "[0, 50]"
  names = ["metrics.jsonl", "metrics.jsonl.tmp", "starts.jsonl.tmp"]
  assert failed == str([f"gs://b/run/{name}" for name in names])
