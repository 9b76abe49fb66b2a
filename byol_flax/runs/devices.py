"""Opens the devices, for every command that needs any."""

import dataclasses
import importlib.util
import os

import jax

# JAX has no public name for what it looks at before it falls back to the CPU.
from jax._src import hardware_utils

from input_pipeline.errors import UsageError

_GPU, _TPU = ("cuda", "gpu"), ("tpu",)
_INSTALL = "pip install 'byol-flax[{extra}]'"


@dataclasses.dataclass(frozen=True)
class Machine:
  """What there is to choose from.

  Attributes:
    gpu: whether there is an NVIDIA GPU.
    tpu: whether there is a TPU.
    cuda: whether JAX's CUDA plugin is installed.
    libtpu: whether the TPU's library is installed.
  """

  gpu: bool
  tpu: bool
  cuda: bool
  libtpu: bool


def open_devices(*, shared: bool = False) -> None:
  """Starts JAX's backend; after `jax.distributed.initialize`, if that is due.

  Args:
    shared: whether another process needs memory of the GPU as well. JAX would
      take three quarters of it at once, however little it needs.

  Raises:
    UsageError: JAX_PLATFORMS asks for what is not there; or JAX lacks a package
      to use the machine's GPU or TPU, and JAX_PLATFORMS does not choose.
  """
  if shared:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  asked = jax.config.jax_platforms or ""  # type: ignore[attr-defined]
  machine = _look_around()
  if problem := missing_package(asked, machine):
    raise UsageError(problem)
  try:
    jax.devices()
  # For a known platform without a device JAX fails with an assertion.
  except (RuntimeError, AssertionError) as error:
    raise UsageError(unusable(asked, str(error), machine)) from None


def missing_package(asked: str, machine: Machine) -> str:
  """A sentence if JAX would ignore a GPU or TPU for lack of a package, or "".

  Args:
    asked: JAX_PLATFORMS; "" leaves the choice to JAX.
    machine: what there is.
  """
  if asked:
    return ""
  for there, usable, what, extra in (
    (machine.tpu, machine.libtpu, "a TPU", "tpu"),
    (machine.gpu, machine.cuda, "an NVIDIA GPU", "cuda"),
  ):
    if there and not usable:
      return (
        f"This machine has {what}, which JAX can use once its package is "
        f"installed: {_INSTALL.format(extra=extra)}. To compute on the CPU all "
        "the same, set JAX_PLATFORMS=cpu."
      )
  return ""


def unusable(asked: str, reason: str, machine: Machine) -> str:
  """What to say when JAX cannot open the devices that it was asked for.

  Args:
    asked: JAX_PLATFORMS, comma-separated.
    reason: JAX's own words; may be empty.
    machine: what there is.
  """
  names = [name.strip() for name in asked.lower().split(",")]
  if any(name in _GPU for name in names) and not machine.cuda:
    why = f"CUDA for JAX is not installed: {_INSTALL.format(extra='cuda')}"
  elif any(name in _TPU for name in names) and not machine.libtpu:
    why = f"libtpu is not installed: {_INSTALL.format(extra='tpu')}"
  elif unknown := [x for x in names if x not in ("cpu", "", *_GPU, *_TPU)]:
    why = f"there is no platform {unknown[0]!r}; known are cpu, cuda and tpu"
  else:
    first = (reason.splitlines() or [""])[0].partition(" (set JAX_PLATFORMS")[0]
    why = first.removesuffix(".") or "it found no such device on this machine"
  return (
    f"JAX_PLATFORMS is {asked!r}, and JAX cannot use that: {why}. Without "
    "JAX_PLATFORMS it takes the best devices that it finds; "
    "JAX_PLATFORMS=cpu works everywhere."
  )


def _look_around() -> Machine:
  hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
  plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
  return Machine(
    gpu=hardware_utils.has_visible_nvidia_gpu() and not hidden,
    tpu=hardware_utils.num_available_tpu_chips_and_device_id()[0] > 0,
    cuda=any(importlib.util.find_spec(name) for name in plugins),
    libtpu=importlib.util.find_spec("libtpu") is not None,
  )
