"""The exceptions that `byol` tells in a sentence, without a traceback."""


class UsageError(ValueError):
  """A mistake in a config, a flag or the data.

  Its text is one or two sentences: what was expected, what came, what to do.
  `byol` prints the text without a traceback and exits with status 2.
  """


class RunError(RuntimeError):
  """A run that cannot go on, through no mistake of usage; status 1."""


class PreemptedError(Exception):
  """One of the processes received SIGTERM, and all end after a save."""


class StorageError(RunError):
  """What keeps the data cannot be reached, however often it was tried."""


class DiskFullError(RunError):
  """A disk takes no more data; see `full_disk`."""


class UnreadableError(Exception):
  """A file is at fault itself: absent, forbidden or damaged."""
