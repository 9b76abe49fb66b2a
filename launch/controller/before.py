"""What is checked and asked before anything is created."""

from __future__ import annotations

import pathlib
import re
import sys

from launch.controller import bill, permission
from launch.controller.calls import Console
from launch.controller.ending import Ended
from launch.controller.settings import Settings

_SECONDS = 120
# US dollars above which a person is asked.
_ASK_ABOVE = 100.0
# The places in which Google's multi-regions lie.
_MULTI_REGIONS = {"US": "us-", "EU": "europe-", "ASIA": "asia-"}


def say_unchecked(chosen: Settings, console: Console) -> None:
  """Says so if the config could not be read, see `Settings.dataset`."""
  if not chosen.dataset[0]:
    console.say(
      "The config was not checked, because that needs the environment of `make "
      "demo` beside launch/, at the commit that runs. The workers check it."
    )


def check_money(chosen: Settings, console: Console) -> None:
  """Says what it costs, and asks if that is much.

  Raises:
    Ended: the person does not want it, or cannot be asked.
  """
  asked = chosen.asked
  changed = asked.argument or asked.overrides
  found = bill.estimate(
    chosen.slice,
    chosen.zone,
    asked.spot,
    asked.number("price"),
    None if changed else asked.config,
  )
  what = f"{chosen.slice} in {chosen.zone}, {chosen.kind}"
  if found.hour is None:
    console.say(
      f"What {what}, costs is not known here: launch/prices.tsv has no row for "
      "it; --price=DOLLARS of a device-hour tells."
    )
    return
  most = found.most(asked.number("max-hours"))
  assert most is not None
  dollars, reason = most
  console.say(
    f"{what}: ${found.hour:,.2f} an hour ({found.source}); ${dollars:,.2f} for "
    f"{reason}."
  )
  if dollars > _ASK_ABOVE:
    _agree(chosen, console, f"This may cost ${dollars:,.0f}")


def _agree(chosen: Settings, console: Console, what: str) -> None:
  """Asks whether to go on; raises Ended if not, or if nobody can be asked."""
  if "yes" in chosen.asked.flags or console.dry_run:
    return
  if not sys.stdin.isatty():
    raise Ended(2, f"{what}; give --yes to agree.")
  # Not by input(), which loses an exception of a signal handler while it writes
  # its question (builtin_input of CPython clears what a flush raises).
  print("Go on? [y/N] ", end="", flush=True)
  if sys.stdin.readline().strip().lower() not in ("y", "yes"):
    raise Ended(2, "Nothing was created.")


def check_deletion(chosen: Settings, console: Console) -> None:
  """Asks whether to go on if the slice may not delete itself.

  Raises:
    Ended: as `check_money`.
  """
  if chosen.asked.delete == "never":
    return
  answer, account = permission.may_delete(chosen, console)
  if answer == "no":
    console.say(
      f"{account} may not delete the slice, so it costs money until this "
      "program or you delete it. To allow it:\n"
      + permission.grant(chosen.project, account)
    )
    _agree(chosen, console, "The slice may not delete itself")


def check_places(
  chosen: Settings, console: Console, note: pathlib.Path
) -> None:
  """Checks that workdir and data are there, and near.

  Only buckets can be looked at from here; absolute paths are the workers'. The
  workdir gets a file that names the commit, which shows that one may write.

  Args:
    chosen: what was asked for.
    console: where programs are run.
    note: a local file that names the commit.

  Raises:
    Ended: with one sentence on what is wrong.
  """
  data = chosen.asked.values.get("data", "")
  buckets = {_bucket(path): path for path in (data, chosen.workdir)}
  for bucket in buckets:
    if bucket:
      _check_bucket(chosen, console, bucket)
  if data.startswith("gs://"):
    answer = console.run(("gcloud", "storage", "ls", f"{data}/"), _SECONDS)
    if answer.status:
      raise Ended(2, f"The data in {data} cannot be read: {answer.last_error}")
  if chosen.workdir.startswith("gs://"):
    target = f"{chosen.workdir}/logs/commit.txt"
    words = ("gcloud", "storage", "cp", "--quiet", str(note), target)
    answer = console.run(words, _SECONDS)
    if answer.status:
      raise Ended(
        2,
        f"The workdir {chosen.workdir} cannot be written to: "
        f"{answer.last_error}",
      )


def _bucket(path: str) -> str:
  found = re.match(r"gs://[^/]+", path)
  return found[0] if found else ""


def _check_bucket(chosen: Settings, console: Console, bucket: str) -> None:
  words = ("gcloud", "storage", "buckets", "describe", bucket)
  answer = console.run((*words, "--format=value(location)"), _SECONDS)
  if console.dry_run:
    return
  if answer.error_matches("not found|404"):
    raise Ended(2, f"There is no bucket {bucket}: {answer.last_error}")
  # gcloud prints notices, too, and not always on stderr.
  lines = re.findall("^[A-Z]+[A-Z0-9-]*$", answer.out, re.MULTILINE)
  if answer.status or not lines:
    # To use a bucket one need not be allowed to ask where it is.
    console.say(f"Where {bucket} is cannot be found out: {answer.last_error}")
    return
  if is_near(lines[-1], chosen.zone):
    return
  far = (
    f"{bucket} is in {lines[-1]}, the slice in {chosen.zone}: reading from "
    "there is slow and costs money"
  )
  if "yes" not in chosen.asked.flags:
    raise Ended(2, f"{far}; make a bucket in that region, or give --yes.")
  console.say(f"{far}.")


def is_near(location: str, zone: str) -> bool:
  """Whether a bucket's location holds a zone; a dual-region is taken for it."""
  if location in _MULTI_REGIONS:
    return zone.startswith(_MULTI_REGIONS[location])
  if "-" not in location:
    return True  # a dual-region such as EUR4
  return zone.startswith(f"{location.lower()}-")
