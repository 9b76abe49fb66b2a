"""What tests of runs that begin with another one's weights share."""

import pytest

from tests.pretrain import begun


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A workdir, see `begun.save_source`, and its state."""
  folder = str(tmp_path_factory.mktemp("source"))
  return folder, begun.save_source(folder)
