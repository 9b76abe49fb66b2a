"""Exact nearest-neighbour classification by cosine similarity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.pretrain import losses

# Queries handled at once, which bounds the [queries, bank] similarities.
_TILE = 256


@functools.partial(jax.jit, static_argnames=("k", "num_classes"))
def _vote(
  queries: jax.Array,
  bank: jax.Array,
  labels: jax.Array,
  *,
  k: int,
  num_classes: int,
) -> jax.Array:
  """Classes of unit `queries` [Q, F] from a unit `bank` [N, F], int32 [Q]."""
  # By default TPUs would round the inputs to bfloat16.
  similarity = jnp.matmul(queries, bank.T, precision="highest")
  nearest, index = jax.lax.top_k(similarity, k)  # [Q, k]
  chosen = jax.nn.one_hot(labels[index], num_classes)  # [Q, k, K]
  votes = jnp.sum(chosen, axis=1)
  # Cosines lie in [-1, 1], so this is less than one vote and only breaks ties.
  closeness = jnp.sum(chosen * (nearest[..., None] + 1), axis=1) / (2 * k + 1)
  return jnp.argmax(votes + closeness, axis=-1).astype(jnp.int32)


def predict(
  bank: np.ndarray,
  labels: np.ndarray,
  queries: np.ndarray,
  *,
  k: int,
  num_classes: int,
) -> np.ndarray:
  """Majority class of the k nearest; among tied classes the closest wins.

  Args:
    bank: float [N, F], examples with known class. Only directions count.
    labels: int [N]; rows with -1 are left out of the bank.
    queries: float [Q, F].
    k: neighbours; more than the bank holds counts as all of it.
    num_classes: K.

  Returns:
    int32 [Q].
  """
  labelled = labels >= 0
  unit_bank = losses.unit_length(jnp.asarray(bank[labelled], jnp.float32))
  known = jnp.asarray(labels[labelled])
  classes = []
  for start in range(0, len(queries), _TILE):
    tile = jnp.asarray(queries[start : start + _TILE], jnp.float32)
    vote = _vote(
      losses.unit_length(tile),
      unit_bank,
      known,
      k=min(k, len(unit_bank)),
      num_classes=num_classes,
    )
    classes.append(np.asarray(vote))
  return np.concatenate(classes) if classes else np.zeros(0, np.int32)


def top1(
  bank: np.ndarray,
  bank_labels: np.ndarray,
  queries: np.ndarray,
  query_labels: np.ndarray,
  *,
  k: int,
  num_classes: int,
) -> float:
  """Share of labelled queries whose class is found, in [0, 1].

  Shapes as in `predict`; `query_labels` is int [Q], rows with -1 do not count.
  """
  labelled = query_labels >= 0
  found = predict(
    bank, bank_labels, queries[labelled], k=k, num_classes=num_classes
  )
  return float(np.mean(found == query_labels[labelled]))
