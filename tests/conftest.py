"""Every test runs on eight simulated CPU devices, with strict shapes."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import signal
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# How XLA optimises for a CPU takes three quarters of the time of a compilation,
# and nothing of it is tested. XLA_FLAGS= make test leaves all of it on.
_XLA_FLAGS = ["--xla_backend_optimization_level=0"]
# XLA ends a process that has a flag it does not know, and these may go.
if importlib.metadata.version("jaxlib").startswith("0.10."):
  _XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")
  # A program that is cut into pieces costs more work, and is done no sooner
  # where other tests keep the other cores busy.
  _XLA_FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("XLA_FLAGS", " ".join(_XLA_FLAGS))
# Otherwise each of the processes that tests start compiles our modules again,
# and each of xdist all the tests, for which it takes four seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# The TPU compiler: no TPU is looked for, and several may run at once.
FOR_LIBTPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v3-8",
  "TPU_LOG_DIR": "disabled",
}
os.environ.update(FOR_LIBTPU)
# What one process has compiled is there for the others of this session: for
# those of xdist, which inherit the folder, and for those that tests start.
FOR_COMPILATION = (
  "XLA_FLAGS",
  "JAX_COMPILATION_CACHE_DIR",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
if "PYTEST_XDIST_WORKER" not in os.environ:
  _CACHE = tempfile.mkdtemp(prefix="byol-compiled-")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
  atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

import jax
import numpy as np
import pytest
from absl import flags

# In the background of a script Ctrl-C is ignored, by what tests start, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags.


def pytest_collection_modifyitems(items):
  """The long ones first, so that none is left to one process at the end."""

  def short(item):
    # Tests that share a costly fixture stay together.
    return not any(map(item.get_closest_marker, ("slow", "xdist_group")))

  items.sort(key=short)


def seldom_collect_garbage():
  """Exempts what is imported, and looks at all other objects less often.

  Tracing makes objects by the million, and to look through all that there are
  again and again took a tenth of the time of tests.
  """
  gc.collect()
  gc.freeze()
  gc.set_threshold(20_000)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
  """Fails if xdist forgets groups; it marks their tests by their names."""
  seldom_collect_garbage()
  if not getattr(session.config.option, "loadgroup", False):
    return
  for item in session.items:
    group = item.get_closest_marker("xdist_group")
    assert not group or item.nodeid.endswith(f"@{group.args[0]}"), item.nodeid


_GENERATORS = {}  # those of modules of tests, and their states once imported


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
  yield
  for name, module in sys.modules.items():
    if name.startswith("tests."):
      for value in vars(module).values():
        if isinstance(value, np.random.Generator):
          _GENERATORS[value.bit_generator] = value.bit_generator.state


def _draw_as_if_alone():
  """A test's numbers do not depend on what its process ran before it."""
  for bits, state in _GENERATORS.items():
    bits.state = state


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
  _draw_as_if_alone()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
  _draw_as_if_alone()


@pytest.fixture
def tpu_compiler():
  """Tests that compile for TPUs; libtpu exists for Linux on x86-64 only."""
  pytest.importorskip("libtpu")
