"""Adds to the end of a file, local or gs://."""

from etils import epath


def append(path: epath.PathLike, data: bytes) -> None:
  """Adds `data` to the file at `path`, which is made if it is absent.

  An object in a bucket is read and written anew. TensorFlow would do that by
  itself. But where it is absent, gcsfs takes its place, which would replace
  what is there by `data`.
  """
  target = epath.Path(path)
  if str(target).startswith("gs://"):
    try:
      before = target.read_bytes()
    except FileNotFoundError:
      before = b""
    target.write_bytes(before + data)
  else:
    with target.open("ab") as file:
      file.write(data)
