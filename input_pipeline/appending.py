"""Adds to the end of a file, local or gs://."""

from etils import epath

from input_pipeline import retries


def append(path: epath.PathLike, data: bytes) -> None:
  """Adds `data` to the file at `path`, which is made if it is absent.

  An object in a bucket is read and written anew, so nothing of it can be torn,
  and a bucket that does not answer is asked again. TensorFlow would read and
  write by itself. But where it is absent, gcsfs takes its place, which would
  replace what is there by `data`.

  Raises:
    StorageError: for a minute a bucket did not answer.
    RunError: it refuses.
    OSError: a local file takes nothing, or a part only.
  """
  target = epath.Path(path)
  if not str(target).startswith("gs://"):
    with target.open("ab") as file:
      file.write(data)
    return

  def before() -> bytes:
    try:
      found: bytes = target.read_bytes()
    except FileNotFoundError:
      return b""
    return found

  whole = retries.in_bucket(before, str(target)) + data
  retries.in_bucket(lambda: target.write_bytes(whole), str(target))
