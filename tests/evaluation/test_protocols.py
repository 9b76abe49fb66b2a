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
        name: training.once(setting, f"scores-{name}", lambda: {"score": 1})
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


def forget_makers(folder):
  """As an older version left it."""
  path = folder / place.IDENTITY
  identity = json.loads(path.read_text())
  del identity["made_by"]
  path.write_text(json.dumps(identity))


def test_what_an_older_version_kept_was_made_by_it(results, tmp_path):
  card = results(2, ["a"]) | {"code_version": "0ld"}
  result = tmp_path / place.RESULT
  result.write_text(json.dumps(card))
  forget_makers(tmp_path)
  again = results(4, ["a"])
  assert (again | {"seconds": 0}) == (card | {"seconds": 0})
  older = {"code_version": "0ld", "devices": "2 cpu devices"}
  assert results(4, ["a", "b"])["also_made_by"] == [older]
  # With trainings, of which the last start made only some.
  (tmp_path / "seed-0").mkdir()
  starts = [
    {"code_version": "0ld", "wall_time": 3},
    {"code_version": "0lder", "wall_time": 2},
  ]
  lines = "\n".join(map(json.dumps, starts))
  (tmp_path / "seed-0/starts.jsonl").write_text(f"{lines}\n{{")
  result.write_text(json.dumps(card))
  forget_makers(tmp_path)
  both = results(4, ["a"])
  oldest = {"code_version": "0lder", "devices": "unknown devices"}
  assert both["also_made_by"] == [oldest]
  assert {key: both[key] for key in older} == older


def test_half_of_an_older_version(results, tmp_path):
  results(2, ["a"])
  (tmp_path / place.RESULT).unlink()
  forget_makers(tmp_path)
  last = results(4, ["a", "b"])
  assert last["devices"] == "4 cpu devices"
  (other,) = last["also_made_by"]
  assert other["code_version"] == "an older version"
