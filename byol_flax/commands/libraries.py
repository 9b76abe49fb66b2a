"""Sets what libraries read from the environment before they are imported."""

import contextlib
import glob
import os
from collections.abc import Iterator

from input_pipeline import full_disk


def settle() -> None:
  """Keeps libraries quiet; the command's own lines say enough."""
  hush_libtpu()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # Imported here, because `--help` and the start of `train` need not wait.
  from absl import flags, logging

  # Orbax and Grain log every save and every start; the progress line is enough.
  logging.set_verbosity(logging.ERROR)
  full_disk.hush()
  flags.FLAGS.mark_as_parsed()  # Grain reads absl flags when workers start.


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps Orbax quiet within the block, in a program that is not ours.

  As soon as JAX opens its devices, libtpu, if installed, is kept quiet, too.
  """
  hush_libtpu()
  from absl import logging

  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(before)


def compile_for_tpus() -> None:
  """Lets JAX compile for TPUs on a machine without one, or beside its own.

  Call it before JAX is imported.
  """
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # no metadata server to ask
  os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # two preflights at once
  os.environ["TPU_LOG_DIR"] = "disabled"


def hush_libtpu() -> None:
  """Keeps the TPU compiler, if installed, from searching for an absent TPU."""
  if not (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")):
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v3-8")
