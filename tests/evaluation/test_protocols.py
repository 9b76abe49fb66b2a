"""A result names what computed it, not who read it last."""

import io
import json

import pytest

from byol_flax.evaluation import place, protocols, training
from byol_flax.runs.distributed import Processes
from configs import knn
from tests.evaluation import settings


@pytest.fixture
def results(tmp_path, monkeypatch):
  """Evaluates on so many devices, which compute what is not yet in `parts`."""
  opened = settings.untrained(settings.mesh_of(1))

  def result(devices, parts):
    def protocol(setting):
      return {
        name: training.once(setting, name, lambda: {"score": 1})
        for name in parts
      }

    monkeypatch.setitem(protocols.PROTOCOLS, "knn", protocol)
    session = protocols.Session(
      encoder=opened,
      mesh=settings.mesh_of(devices),
      processes=Processes(),
      out=io.StringIO(),
      console=io.StringIO(),
    )
    folder = str(tmp_path)
    protocols.evaluate(session, knn.get_config(), folder, again=True)
    return json.loads((tmp_path / place.RESULT).read_text())

  return result


def test_who_reads_what_was_kept_has_not_made_it(results):
  first = results(2, ["a"])
  assert first["devices"] == "2 cpu devices"
  assert first["also_made_by"] == []
  again = results(4, ["a"])
  assert (again | {"seconds": 0}) == (first | {"seconds": 0})
  more = results(4, ["a", "b"])
  assert more["devices"] == "4 cpu devices"
  (other,) = more["also_made_by"]
  assert other == {key: first[key] for key in ("code_version", "devices")}
  last = results(2, ["a", "b", "c"])
  assert last["devices"] == first["devices"]
  (other,) = last["also_made_by"]
  assert other["devices"] == more["devices"]


def test_where_nothing_is_kept_the_last_start_has_made_all(results):
  assert results(2, [])["devices"] == "2 cpu devices"
  last = results(4, [])
  assert last["devices"] == "4 cpu devices"
  assert last["also_made_by"] == []
