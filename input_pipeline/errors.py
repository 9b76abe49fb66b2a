"""The exceptions that `byol` reports in a sentence, without a traceback."""


class UsageError(ValueError):
  """A mistake in a config, a flag or the data.

  Its text is one or two sentences: what was expected, what came, what to do.
  `byol` prints the text without a traceback and exits with status 2.
  """


class RunError(RuntimeError):
  """A run cannot go on, through no mistake of the user; status 1."""


class PreemptedError(Exception):
  """A process received SIGTERM, and all processes end after a save."""


class StorageError(RunError):
  """The storage of the data cannot be reached, after several tries."""


class DiskFullError(RunError):
  """A disk takes no more data; see `full_disk`."""


class UnreadableError(Exception):
  """A file itself is at fault: it is absent, forbidden or damaged."""
