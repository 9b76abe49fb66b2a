"""The compiler's figures for runs whose speed on TPUs was published.

Command: JAX_PLATFORMS=cpu python -m tests.published_runs
Compiles one update of a plain supervised ResNet-50 (our encoder, SGD with
momentum) with the images a core of each run, and prints what the run took
beside the compiler's two figures. Two minutes on two cores.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from byol_flax import sharding, slices
from byol_flax.models import byol, resnet
from byol_flax.preflight import compiler
from byol_flax.pretrain import losses


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of ResNet-50 at 224 pixels in bfloat16.

  Attributes:
    source: who published it, and where.
    images_per_core: of an update.
    images_per_core_second: throughput.
  """

  source: str
  images_per_core: int
  images_per_core_second: float


RUNS = (
  # More than 1.05 million images/s on 1,024 chips, batch 32,768.
  Run("arXiv 1811.06992, v3-2048", 16, 1.05e6 / 2048),
  # 480,000 images/s, batch 32,768: MLPerf's TensorFlow code, told by its user.
  Run(
    "threadreaderapp.com/thread/1223395022814339073, v3-512", 64, 480e3 / 512
  ),
  # 125,100 updates of 1,024 images in 4.4 hours, evaluations included.
  Run(
    "github.com/google/flax examples/imagenet/README.md, v3-8",
    128,
    125_100 * 1024 / (4.4 * 3600) / 8,
  ),
)
_SLICE = "v3-8"  # collectives have no cost in either figure


class Classifier(nn.Module):
  """The encoder and a layer of logits."""

  encoder: nn.Module

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Maps images, uint8 [B, 1, S, S, 3], to logits [B, 1000]."""
    return nn.Dense(1000)(self.encoder(images, train=True)[:, 0])


def classifier() -> Classifier:
  """ResNet-50 as `configs/byol_r50x1.py` has it."""
  types = {"dtype": jnp.bfloat16, "param_dtype": jnp.float32}
  encoder = byol.make_encoder(
    architecture="resnet50",
    width=1,
    stem="imagenet",
    shortcut="projection",
    padding="same",
    zero_init_last=False,
    recompute=False,
    initializer="fan_in",
    input_scaling="imagenet",
    norm=resnet.make_norm(decay=0.9, epsilon=1e-5, **types),
    **types,
  )
  return Classifier(encoder)


def cost(images_per_core: int) -> compiler.Cost:
  """What the compiler says of one update."""
  slice_ = slices.find(_SLICE)
  mesh = sharding.make_mesh(compiler.devices_of(slice_))
  network, tx = classifier(), optax.sgd(0.1, momentum=0.9)
  batch = images_per_core * slice_.devices

  def create() -> tuple[Any, Any, Any]:
    variables = network.init(
      jax.random.key(0), jnp.zeros((1, 1, 224, 224, 3), jnp.uint8)
    )
    params = variables["params"]
    return params, tx.init(params), variables["batch_stats"]

  def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
    params, opt_state, batch_stats = state

    def objective(params: Any) -> tuple[jax.Array, Any]:
      logits, updated = network.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        mutable=["batch_stats"],
      )
      loss = jnp.mean(losses.cross_entropy(logits, labels))
      return loss, updated["batch_stats"]

    grads, batch_stats = jax.grad(objective, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, batch_stats

  def abstract(x: Any, how: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=how)

  whole, rows = sharding.replicated(mesh), sharding.split(mesh)
  state = jax.tree.map(lambda x: abstract(x, whole), jax.eval_shape(create))
  images = jnp.zeros((batch, 1, 224, 224, 3), jnp.uint8)
  labels = jnp.zeros(batch, jnp.int32)
  lowered = jax.jit(step, donate_argnums=0).lower(
    state, abstract(images, rows), abstract(labels, rows)
  )
  return compiler.cost_of(lowered.compile(), slice_)


def main() -> None:
  """Prints one line for each run."""
  print("images a core | took | by cycles | by estimate | of peak | source")
  for run in RUNS:
    found = cost(run.images_per_core)
    took = run.images_per_core / run.images_per_core_second
    floor = found.flops / slices.find(_SLICE).peak_flops
    print(
      f"{run.images_per_core} | {1e3 * took:.1f} ms"
      f" | {1e3 * found.cycle_seconds:.1f} ms, {took / found.cycle_seconds:.2f}"
      f" | {1e3 * found.seconds:.1f} ms, {took / found.seconds:.2f}"
      f" | {floor / took:.0%} | {run.source}"
    )


if __name__ == "__main__":
  main()
