"""What a slice and a run cost."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from launch.controller import slices

_LAUNCH = pathlib.Path(__file__).parents[1]
PRICES = _LAUNCH / "prices.tsv"
PREFLIGHT = _LAUNCH / "preflight.md"
_HOURS = {"d": 24.0, "h": 1.0, "m": 1 / 60, "s": 1 / 3600}


@dataclasses.dataclass(frozen=True)
class Bill:
  """What is known before anything is created.

  Attributes:
    hour: US dollars for an hour of the slice; None when no price is known.
    source: where the price is from.
    hours: of the run by launch/preflight.md; None when it does not say.
  """

  hour: float | None
  source: str
  hours: float | None

  def most(self, max_hours: float | None) -> tuple[float, str] | None:
    """(US dollars, for what) that may be spent unseen; None without a price.

    Args:
      max_hours: after which the slice is deleted, None for no limit.
    """
    if self.hour is None:
      return None
    if self.hours is not None and not (max_hours and max_hours < self.hours):
      return self.hour * self.hours, f"the whole run of {self.hours:.1f} h"
    if max_hours:
      return self.hour * max_hours, f"--max-hours={max_hours:g}"
    return self.hour * 24, "a day; how long the run takes is not known here"


def estimate(
  slice_: str,
  zone: str,
  spot: bool,
  price: float | None,
  config: str | None,
) -> Bill:
  """Finds out what it costs.

  Args:
    slice_: such as v3-32.
    zone: where it is.
    spot: whether it may be preempted.
    price: of a device-hour in US dollars, from the person; None to look it up.
    config: of the run; None when it is changed by an argument or an override,
      so that launch/preflight.md does not speak of it.
  """
  source = "--price"
  if price is None:
    price, source = _look_up(slice_, zone, spot)
  hour = None if price is None else price * slices.devices(slice_)
  return Bill(hour, source, _hours_of(config, slice_) if config else None)


def hours_of_attempts(goodput: str) -> float | None:
  """How long all attempts took, by the sentence of `byol goodput`.

  Such as "goodput 90% of 1h 05m in 2 attempts: 58m 30s in updates (512 images),
  5m 00s restarting": what lies between two attempts does not count, because a
  preempted slice costs nothing. None if the text is no such sentence.
  """
  whole = re.search(r"goodput \d+% of ([\w ]+) in \d+ attempt", goodput)
  between = re.search(r"[:,] ([\w ]+) restarting\b", goodput)
  if not whole:
    return None
  return _hours(whole[1]) - (_hours(between[1]) if between else 0.0)


def _hours(duration: str) -> float:
  """Hours of such as "3d 04h", "5h 02m", "3m 40s" or "12s"."""
  parts = re.findall(r"(\d+)([dhms])\b", duration)
  return sum(int(count) * _HOURS[unit] for count, unit in parts)


def _look_up(slice_: str, zone: str, spot: bool) -> tuple[float | None, str]:
  """(US dollars for a device-hour, source) by launch/prices.tsv."""
  rows = {}
  for line in PRICES.read_text().splitlines():
    if not line.startswith("#"):
      which, where, *prices, day = line.split("\t")
      rows[which, where] = float(prices[0 if spot else 1]), day
  for which in (slice_, slices.generation(slice_)):
    if (which, zone) in rows:
      price, day = rows[which, zone]
      return price, f"launch/prices.tsv, read on {day}"
  return None, ""


def _hours_of(config: str, slice_: str) -> float | None:
  """Hours of a config on a slice by the table of launch/preflight.md."""
  header: list[str] = []
  for line in PREFLIGHT.read_text().splitlines():
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if cells[0] == "config":
      header = cells
    elif header and cells[:2] == [config, slice_]:
      devices_hours = cells[header.index("device-hours")].replace(",", "")
      return float(devices_hours) / slices.devices(slice_)
  return None
