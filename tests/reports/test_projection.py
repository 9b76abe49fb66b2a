import numpy as np

from byol_flax.reports import projection

RANDOM = np.random.default_rng(6)


def test_groups_of_directions_stay_together_whatever_their_lengths():
  label = np.arange(60) % 3
  features = 5 * np.eye(3, 8)[label] + 0.1 * RANDOM.normal(size=(60, 8))
  features *= RANDOM.uniform(0.1, 10, (60, 1))
  points = projection.embeddings(features.astype(np.float32), seed=0)
  assert list(points) == ["principal components", "t-SNE"]
  for xy in points.values():
    assert xy.shape == (60, 2)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (label[distance.argmin(axis=1)] == label).all()
  again = projection.embeddings(features.astype(np.float32), seed=0)
  np.testing.assert_array_equal(again["t-SNE"], points["t-SNE"])
  for classes, width in ((3, 1600), (21, 1400)):
    names = [f"class {k}" for k in range(classes)]
    image = projection.picture(points, label, names)
    assert image.shape == (700, width, 3)
    assert (image < 255).any(axis=-1).mean() > 0.001
