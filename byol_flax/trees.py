"""Parameter trees: which leaves are matrices, how far two trees are apart."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any  # nested dict of arrays


def is_matrix(params: Tree) -> Tree:
  """True for each weight of two or more dimensions, False for the rest.

  The rest are biases and BatchNorm scales and offsets, the leaves which the
  authors exclude from weight decay and from LARS adaptation.
  """
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def squared_norm(tree: Tree) -> jax.Array:
  """Sum of squares over all leaves, [] float."""
  squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
  return jnp.sum(jnp.stack(squares))


def relative_distance(tree: Tree, reference: Tree) -> jax.Array:
  """|tree - reference| / |reference| over all leaves, [] float."""
  difference = jax.tree.map(jnp.subtract, tree, reference)
  return jnp.sqrt(squared_norm(difference) / squared_norm(reference))


def count(params: Tree) -> int:
  """Number of scalars in the tree (of arrays or of shapes)."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
