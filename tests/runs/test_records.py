"""Records of older formats: completed, and complete for today's configs."""

import json
import re
import tarfile

import pytest

from byol_flax.runs import metrics_log, records, workdir
from configs import byol, byol_digits
from input_pipeline.errors import UsageError
from tests.runs import test_older_records


def format_1():
  """The record of the kept run of digits."""
  with tarfile.open(
    test_older_records.RECORDS / "format1_digits.tar.xz"
  ) as kept:
    (member,) = (
      member
      for member in kept.getmembers()
      if member.name.endswith("/record/metadata")
    )
    return json.load(kept.extractfile(member))


def keys(config):
  return set(metrics_log.flatten(config))


@pytest.mark.parametrize("module", [byol, byol_digits])
def test_every_key_that_came_or_went_has_a_row(module):
  today = keys(module.get_config().to_dict())
  before = keys(format_1()["config"])
  assert today - before == set(records.ADDED_SINCE)
  assert before - today == set(records.REMOVED_SINCE)
  assert today == keys(records.completed(format_1())["config"])


def test_only_what_is_absent_is_filled():
  old = {"config": {"seed": 3, "data": {"name": "digits"}}, "num_classes": 10}
  filled = records.completed(
    old, added={"seed": 0, "data.order": [1], "new.a.b": True}, removed={}
  )
  assert filled["config"] == {
    "seed": 3,
    "data": {"name": "digits", "order": [1]},
    "new": {"a": {"b": True}},
  }
  assert filled["num_classes"] == 10
  assert old["config"] == {"seed": 3, "data": {"name": "digits"}}


def test_a_key_that_is_gone_goes_if_its_value_is_what_is_done_now():
  old = {"config": {"data": {"order": "shuffled", "name": "digits"}}}
  for value, left in (("shuffled", {"name"}), ("sorted", {"name", "order"})):
    done = records.completed(old, added={}, removed={"data.order": value})
    assert set(done["config"]["data"]) == left


def test_keys_on_neither_table_are_named_as_differences():
  now = {**format_1(), "format": records.FORMAT}
  now["config"] = records.completed(now)["config"]
  now = json.loads(json.dumps(now))
  workdir.check_same_run(format_1(), now, "w")
  for change, message in (
    (lambda config: config.pop("seed"), "seed: not a key there, 0 now"),
    (
      lambda config: config["data"].update(order="sorted"),
      "data.order: sorted there, not a key now",
    ),
  ):
    saved = format_1()
    change(saved["config"])
    with pytest.raises(UsageError, match=re.escape(message)):
      workdir.check_same_run(saved, now, "w")


def test_a_record_of_a_newer_version_is_told():
  with pytest.raises(UsageError, match="format 3 and this version"):
    records.completed({"format": 3, "config": {}})
