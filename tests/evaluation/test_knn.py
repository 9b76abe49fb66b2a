"""Nearest neighbours in a bank that is cut among devices, and their votes."""

import collections
import dataclasses
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from byol_flax import sharding
from byol_flax.evaluation import (
  encoder,
  features,
  knn,
  neighbours,
  protocol,
  rows,
)
from byol_flax.runs.distributed import Processes
from configs import byol_digits
from configs import knn as knn_config
from input_pipeline.errors import RunError, UsageError

RNG = np.random.default_rng(0)


def mesh_of(devices):
  return sharding.make_mesh(jax.devices()[:devices])


def collected(values, labels, mesh, batch_size):
  """The rows as an extraction leaves them, the last batch filled up."""
  filled = -(-len(values) // batch_size) * batch_size
  empty = filled - len(values)
  batch = {
    "representation": np.pad(values, ((0, empty), (0, 0))),
    "label": np.pad(labels, (0, empty)),
    "mask": np.arange(filled) < len(values),
  }
  count = filled // batch_size
  parts = (
    sharding.put_batch(
      mesh,
      {name: x[i * batch_size :][:batch_size] for name, x in batch.items()},
    )
    for i in range(count)
  )
  return rows.collect(parts, count, mesh)


def search(bank, queries, k, mesh, **options):
  """Similarities and places [Q, k] in a bank of `rows.Rows`."""
  made = neighbours.make_bank(bank, mesh)
  found = neighbours.nearest(
    made.rows,
    sharding.put_everywhere(mesh, queries.astype(np.float32)),
    k=k,
    mesh=mesh,
    **options,
  )
  return jax.device_get((found.similarity, found.place))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("count", "k"), [(7, 7), (57, 20), (1001, 20)])
def test_the_neighbours_are_those_of_scikit_learn(devices, count, k):
  """Whatever the tiles: 1,001 rows of 8 devices are 126, of one 42 tiles."""
  mesh = mesh_of(devices)
  bank = RNG.normal(size=(count, 6)) + 0.2
  queries = RNG.normal(size=(33, 6)) * 5
  labels = np.zeros(count, int)
  oracle = NearestNeighbors(n_neighbors=k, metric="cosine").fit(bank)
  distance, _ = oracle.kneighbors(queries)
  for made in (
    rows.put(bank, labels, mesh),
    collected(bank, labels, mesh, batch_size=16),
  ):
    similarity, found = search(made, queries, k, mesh, most_numbers=800)
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-6)
    # Two that float32 cannot tell apart may come in either order.
    of_each = 1 - cosine_distances(queries, bank)
    np.testing.assert_allclose(
      np.take_along_axis(of_each, found, axis=1), 1 - distance, atol=1e-6
    )
    assert all(len(set(row)) == k for row in found)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_of_equal_rows_the_first_of_the_split_is_nearer(devices):
  mesh = mesh_of(devices)
  kinds = RNG.integers(0, 4, 211)  # only four different rows
  queries = RNG.normal(size=(9, 4)).astype(np.float32)
  expected = [
    sorted(range(211), key=lambda i, q=query: (-q[kinds[i]], i))[:90]
    for query in queries
  ]
  bank = np.eye(4, dtype=np.float32)[kinds]
  made = collected(bank, kinds, mesh, batch_size=24)
  _, found = search(made, queries, 90, mesh, most_numbers=120)
  np.testing.assert_array_equal(found, expected)


def test_rows_without_a_label_are_not_found():
  mesh = mesh_of(8)
  labels = np.array([0, -1, 2])
  similarity, found = search(
    rows.put(np.eye(3), labels, mesh), np.eye(3), 3, mesh
  )
  assert found.tolist() == [[0, 2, -1], [0, 2, -1], [2, 0, -1]]
  assert np.isneginf(similarity[:, 2]).all()
  score = knn.top1(
    np.eye(3),
    labels,
    np.eye(3),
    np.array([0, 1, -1]),
    k=5,
    num_classes=3,
    mesh=mesh,
  )
  assert score == 0.5  # the third does not count, the second cannot be found


def test_a_device_needs_little_beside_its_part_of_the_bank():
  """Twice the bank takes no more; and it is not sent from device to device."""
  mesh, width, queries, most = mesh_of(8), 64, 128, 2**16

  def compiled(count):
    cut, whole = sharding.split(mesh), sharding.replicated(mesh)
    bank = rows.Rows(
      jax.ShapeDtypeStruct((count, width), jnp.float32, sharding=cut),
      jax.ShapeDtypeStruct((count,), jnp.int32, sharding=cut),
      jax.ShapeDtypeStruct((count,), jnp.int32, sharding=cut),
    )
    asked = jax.ShapeDtypeStruct((queries, width), jnp.float32, sharding=whole)
    return neighbours.nearest.lower(
      bank, asked, k=10, mesh=mesh, most_numbers=most
    ).compile()

  small, large = compiled(80_000), compiled(160_000)
  temporary = [x.memory_analysis().temp_size_in_bytes for x in (small, large)]
  assert temporary[0] == temporary[1]
  assert temporary[0] < 6 * 4 * most
  # Of all that is gathered nothing is larger than all candidates.
  gathered = [
    math.prod(int(n) for n in line.split("[")[1].split("]")[0].split(","))
    for line in large.as_text().splitlines()
    if " all-gather(" in line
  ]
  assert gathered
  assert max(gathered) <= queries * 10 * 8


def oracle_votes(similarity, label, temperature):
  """Majority and weighted vote of one query, as they are defined."""
  counts = collections.Counter(label.tolist())
  closeness, weights = collections.Counter(), collections.Counter()
  for c, s in zip(label.tolist(), similarity.tolist(), strict=True):
    closeness[c] += s
    weights[c] += math.exp(s / temperature)
  by_count = max(counts, key=lambda c: (counts[c], closeness[c], -c))
  return by_count, max(weights, key=lambda c: (weights[c], -c))


def test_votes_are_those_of_their_definitions():
  similarity = -np.sort(-RNG.uniform(-1, 1, (300, 8)).astype(np.float32))
  label = RNG.integers(0, 5, (300, 8))
  expected = np.array(
    [oracle_votes(s, c, 0.3) for s, c in zip(similarity, label, strict=True)]
  )
  assert (expected[:, 0] != expected[:, 1]).sum() > 20
  np.testing.assert_array_equal(
    knn.majority(similarity, label, 5), expected[:, 0]
  )
  vote = knn.weighted(0.3)
  np.testing.assert_array_equal(vote(similarity, label, 5), expected[:, 1])
  # Of a temperature at which every other weight would be 0, the nearest.
  coldest = knn.weighted(1e-6)(similarity, label, 5)
  np.testing.assert_array_equal(coldest, label[:, 0])


def test_the_vote_over_all_classes_is_that_of_scikit_learn():
  bank = RNG.normal(size=(300, 6)) + 0.2
  labels, truth = RNG.integers(0, 3, 300), RNG.integers(0, 3, 600)
  queries = RNG.normal(size=(600, 6)) * 5  # more than one tile
  oracle = KNeighborsClassifier(1, metric="cosine").fit(bank, labels)
  found = knn.top1(
    bank, labels, queries, truth, k=1, num_classes=3, mesh=mesh_of(8)
  )
  assert found == pytest.approx(oracle.score(queries, truth), abs=1e-12)


def setting_of(workdir, devices, spoil=lambda opened: opened, **changes):
  """The protocol on digits, of an encoder that was never trained."""
  mesh = mesh_of(devices)
  config = knn_config.get_config()
  config.num_workers = 0
  config.neighbours = (1, 20)
  config.update(changes)
  run_config = byol_digits.get_config()
  run_config.model.encoder.width = 0.25
  opened = encoder.open_encoder(
    "random:x", mesh, read_config=lambda path: run_config
  )
  return protocol.Setting(
    config=config,
    encoder=spoil(opened),
    workdir=str(workdir),
    mesh=mesh,
    processes=Processes(),
    tell=lambda line: None,
    console=io.StringIO(),
  )


@pytest.mark.slow
def test_the_protocol_counts_what_scikit_learn_counts(tmp_path):
  setting = setting_of(tmp_path, 8)
  found = knn.run(setting)
  known, test = (
    setting.open_split(name) for name in ("train_split", "test_split")
  )
  reader, mesh = setting.make_reader(), setting.mesh
  calibrated = features.calibrate(
    setting.encoder, known, reader, mesh, batch_size=setting.config.batch_size
  )
  (bank, queries) = features.extract_splits(
    features.make_feature_fn(calibrated, mesh),
    calibrated.variables,
    (known, test),
    reader,
    mesh=mesh,
  )
  for k in (1, 20):
    oracle = KNeighborsClassifier(k, metric="cosine").fit(
      bank["representation"], bank["label"]
    )
    score = oracle.score(queries["representation"], queries["label"])
    # Ties of classes are broken in another way there.
    bound = 1e-9 if k == 1 else 0.02
    assert found["top1"]["majority"][k] == pytest.approx(score, abs=bound)
  assert found["top1"]["weighted"][1] == found["top1"]["majority"][1] > 0.5
  assert found["counted"] == {"bank": 1437, "queries": 360}
  assert [split["examples"] for split in found["splits"]] == [1437, 360]


def spoilt(opened):
  """With an infinite offset in the last block, and averages of its own."""

  def spoil(path, leaf):
    last = "['group2_block0']['norm1']['offset']" in jax.tree_util.keystr(path)
    return leaf + jnp.inf if last else leaf

  broken = jax.tree_util.tree_map_with_path(spoil, opened.variables)
  return dataclasses.replace(opened, variables=broken, has_averages=True)


@pytest.mark.slow
def test_bad_input_is_told(tmp_path):
  with pytest.raises(
    UsageError, match=r"neighbours asks for 1,438, but .*1,437"
  ):
    knn.run(setting_of(tmp_path, 1, neighbours=(1, 1438)))
  with pytest.raises(UsageError, match="share 360 images"):
    knn.run(setting_of(tmp_path, 1, train_split="test"))
  with pytest.raises(
    RunError, match="1,437 of the 1,437 features of train are"
  ):
    knn.run(setting_of(tmp_path, 1, spoil=spoilt))


def test_a_query_that_is_not_finite_is_counted():
  mesh = mesh_of(8)
  made = neighbours.make_bank(rows.put(np.eye(3), np.arange(3), mesh), mesh)
  hits = knn.Hits(
    made, neighbours=(1,), votes={"majority": knn.majority}, num_classes=3
  )
  queries = np.eye(3, dtype=np.float32)
  queries[1, 2] = np.inf
  hits.add(sharding.put_everywhere(mesh, queries), np.array([0, 1, -1]))
  assert (hits.count, hits.broken) == (2, 1)
