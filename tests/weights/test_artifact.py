"""A program with the weights in it computes what the encoder does."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.weights import arrays, artifact
from byol_flax.weights.errors import WeightsError
from tests.weights import made

ALONE = """
import json, sys
import jax, jax.export
import numpy as np
with open(sys.argv[1], "rb") as file:
  program = jax.export.deserialize(bytearray(file.read()))
images = np.load(sys.argv[2])
np.save(sys.argv[3], program.call(images))
ours = [n for n in sys.modules if n.split(".")[0] in ("byol_flax", "flax")]
print(json.dumps([program.platforms, ours]))
"""


@pytest.fixture(scope="module")
def found():
  return made.weights(modules=("encoder",))


def expected(found, images):
  module = artifact.module_of(found)
  variables = arrays.read(found.encoder)
  return module.apply(variables, images[:, None], train=False)[:, 0]


@pytest.mark.slow
def test_the_file_runs_with_jax_alone(found, tmp_path):
  path = str(tmp_path / artifact.FILE)
  artifact.write(path, found)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (5, 16, 16, 3), np.uint8)
  np.save(tmp_path / "images.npy", images)
  names = (path, tmp_path / "images.npy", tmp_path / "y.npy")
  told = subprocess.run(
    [sys.executable, "-c", ALONE, *map(str, names)],
    cwd=tmp_path,
    check=True,
    capture_output=True,
    text=True,
  )
  platforms, ours = json.loads(told.stdout)
  assert platforms == list(artifact.PLATFORMS)
  assert not ours
  y = np.load(tmp_path / "y.npy")
  assert y.dtype == np.float32
  np.testing.assert_allclose(y, expected(found, images), rtol=1e-5, atol=1e-6)


def test_images_of_another_size_are_refused(found, tmp_path):
  path = tmp_path / artifact.FILE
  artifact.write(str(path), found)
  program = jax.export.deserialize(bytearray(path.read_bytes()))
  with pytest.raises(ValueError, match="shape"):
    program.call(jnp.zeros((1, 17, 17, 3), jnp.uint8))


@pytest.mark.slow
def test_what_is_too_large_is_told():
  model = made.model_with(architecture="resnet200", width=4.0)
  with pytest.raises(WeightsError, match="takes 2,000,000,000; export it with"):
    artifact.check(made.without_values(model))
