"""Storage that fails for a while or for good, and files at fault themselves."""

import errno

import pytest

from input_pipeline import retries
from input_pipeline.errors import StorageError, UnreadableError, UsageError
from input_pipeline.retries import Fault, fault_of, patiently
from input_pipeline.sources import ReadableSource, open_source
from tests.input_pipeline.test_folders import make_folder

SOON = (0.001, 0.002)


def of_kind(name, text, module="tensorflow.python.framework.errors_impl"):
  """An error as a library raises it that need not be here."""
  return type(name, (Exception,), {"__module__": module})(text)


@pytest.mark.parametrize(
  ("error", "fault"),
  [
    (FileNotFoundError(errno.ENOENT, "No such file", "x"), Fault.FILE),
    (PermissionError(errno.EACCES, "Permission denied", "x"), Fault.FILE),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), Fault.FILE),
    (OSError("x is shorter than it was"), Fault.FILE),
    (OSError(errno.EIO, "Input/output error", "x"), Fault.STORAGE),
    (OSError(errno.ESTALE, "Stale file handle", "x"), Fault.STORAGE),
    (OSError(errno.ENOTCONN, "not connected", "x"), Fault.STORAGE),
    (TimeoutError("timed out"), Fault.STORAGE),
    (ConnectionResetError(errno.ECONNRESET, "reset"), Fault.STORAGE),
    # ArrayRecord, as it words them.
    (
      RuntimeError("open() failed: No such file or directory; opening /x"),
      Fault.FILE,
    ),
    (
      RuntimeError(
        "read() failed: Input/output error; reading /x; at byte 0; "
        "Failed to read RiegeliPostscript"
      ),
      Fault.STORAGE,
    ),
    (
      RuntimeError("Invalid Riegeli/records file: chunk boundary is 65536"),
      Fault.FILE,
    ),
    (RuntimeError("CURL error [6]=Couldn't resolve host name"), Fault.STORAGE),
    (RuntimeError("something new"), Fault.UNKNOWN),
    # Tensorstore and TensorFlow.
    (ValueError("UNAVAILABLE: Error reading gs://b/c/d"), Fault.STORAGE),
    (ValueError("NOT_FOUND: Error opening zarr driver"), Fault.FILE),
    (ValueError("DATA_LOSS: Error reading chunk"), Fault.FILE),
    (of_kind("UnavailableError", "Socket closed"), Fault.STORAGE),
    (of_kind("DataLossError", "truncated record at 81"), Fault.FILE),
  ],
)
def test_whose_fault_it_is(error, fault):
  assert fault_of(error) is fault


class Flaky:
  """Fails `times` times, then returns 5."""

  def __init__(self, times, error):
    self.left, self.error, self.calls = times, error, 0

  def __call__(self):
    self.calls += 1
    self.left -= 1
    if self.left >= 0:
      raise self.error
    return 5


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.EIO, "Input/output error"),
    RuntimeError("something new"),
    of_kind("UnavailableError", "Socket closed"),
  ],
)
def test_storage_is_asked_again_and_not_for_ever(error):
  read = Flaky(2, error)
  assert patiently(read, "x", SOON) == 5
  assert read.calls == 3
  read = Flaky(99, error)
  with pytest.raises(StorageError, match=r"storage of the images of x .* 3 ti"):
    patiently(read, "the images of x", SOON)
  assert read.calls == 3


def test_a_file_at_fault_is_not_read_again():
  for error in (FileNotFoundError(errno.ENOENT, "No such file", "a/b.jpg"),):
    read = Flaky(99, error)
    with pytest.raises(UnreadableError, match=r"No such file.*b\.jpg"):
      patiently(read, "x", SOON)
    assert read.calls == 1


@pytest.mark.parametrize("kind", [TypeError, IndexError, UsageError])
def test_faults_of_a_program_pass_through(kind):
  read = Flaky(99, kind("of the program"))
  with pytest.raises(kind, match="of the program"):
    patiently(read, "x", SOON)
  assert read.calls == 1


def test_the_wait_is_about_a_minute():
  assert 60 <= sum(retries.DELAYS) <= 70


def test_the_file_of_a_read_that_fails_is_named(tmp_path):
  name = make_folder(tmp_path, ["a/1.png"])
  # Opens, but cannot be read at its beginning.
  (tmp_path / "a/2.png").symlink_to("/proc/self/mem")
  source = ReadableSource(open_source(name, "all"), delays=SOON)
  with pytest.raises(
    StorageError, match=r"output error: '.*/a/2\.png'\. It was"
  ):
    source[1]
  # All of the folder is gone: it is not the file's fault.
  (tmp_path / "a/1.png").rename(tmp_path.parent / "1.png")
  assert not source.readable(0)
  tmp_path.rename(tmp_path.with_name("unmounted"))
  with pytest.raises(StorageError, match="Stale file"):
    source.readable(0)
