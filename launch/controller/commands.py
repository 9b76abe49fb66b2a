"""The commands of launch/tpu_vm.sh."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from launch.controller import bill, workers
from launch.controller.arguments import parse
from launch.controller.attempt import END_SECONDS
from launch.controller.calls import Answer, Console
from launch.controller.cloud import Cloud
from launch.controller.ending import Ended, answer_signals, end_of, tell
from launch.controller.keeper import Keeper
from launch.controller.loop import LOG_SECONDS, Loop
from launch.controller.settings import Settings, fill_in
from launch.controller.words import quoted

_TENSORBOARD_PORT = 6006


def main(program: str, words: Sequence[str]) -> int:
  """Does what the command line says; returns the exit status.

  Args:
    program: how this program was called.
    words: the command line after it.
  """
  try:
    asked = parse(program, words)
    if not shutil.which("gcloud"):
      raise Ended(
        2, "gcloud is not installed; see https://cloud.google.com/sdk."
      )
    chosen = fill_in(asked, program, os.environ)
    console = Console(asked.dry_run)
    cloud = Cloud(chosen, console)
    if asked.command == "tensorboard":
      return _tensorboard(cloud, console)
  except Ended as refusal:
    tell(refusal)
    return refusal.status
  except KeyboardInterrupt:
    return 130
  keeper = Keeper(chosen, console, cloud)
  answer_signals()
  end = end_of(lambda: _do(chosen, console, cloud, keeper))
  tell(end)
  # Whatever has happened, a slice of this command is deleted, or named.
  after = end_of(lambda: keeper.settle(end))
  tell(after)
  return end.status or after.status


def _do(
  chosen: Settings, console: Console, cloud: Cloud, keeper: Keeper
) -> None:
  command = chosen.asked.command
  if command == "run":
    Loop(chosen, console, cloud, keeper).control()
  elif command == "up":
    Loop(chosen, console, cloud, keeper).up()
  elif command == "status":
    _status(chosen, console, cloud)
  elif command == "logs":
    _logs(chosen, console, cloud)
  elif command == "stop":
    _stop(chosen, console, cloud)
  else:
    _need_slice(chosen, console, cloud, "nothing was deleted")
    if not cloud.delete():
      raise Ended(1, "")  # the reason was said


def _need_slice(
  chosen: Settings, console: Console, cloud: Cloud, so: str
) -> None:
  """Raises Ended if there is no slice, and says where one of that name is."""
  if cloud.read_slice().state == "absent" and not console.dry_run:
    sentence = f"There is no slice {chosen.name} in {chosen.zone}; {so}."
    raise Ended(1, sentence + _elsewhere(chosen, cloud))


def _elsewhere(chosen: Settings, cloud: Cloud) -> str:
  """Sentences that name the command for a slice of that name elsewhere."""
  sentences = ""
  for zone in cloud.elsewhere():
    there = dataclasses.replace(chosen, zone=zone)
    command = there.own_command(chosen.asked.command)
    sentences += f" One of that name is in {zone}: {command}"
  return sentences


def _not_set_up(answer: Answer) -> bool:
  """Whether those workers that answered lack our code."""
  nothing = not answer.out.strip()
  return nothing and workers.read(answer, 0).status == "absent"


def _say_silence(answer: Answer, console: Console) -> None:
  """Ends the program if no worker answered; names the error if some did not."""
  if _not_set_up(answer):
    raise Ended(1, "The workers are not set up yet, so there is no run.")
  if answer.status and not answer.out.strip():
    raise Ended(1, f"The workers do not answer: {answer.last_error}")
  if answer.status:
    console.say(f"Some workers do not answer: {answer.last_error}")


def _status(chosen: Settings, console: Console, cloud: Cloud) -> None:
  found = cloud.read_slice()
  console.show(f"{chosen.name}: {found.seen}")
  if found.state == "absent" and not console.dry_run:
    there = _elsewhere(chosen, cloud)
    if there:
      raise Ended(1, f"It is not in {chosen.zone}.{there}")
  if found.state == "ready":
    answer = cloud.on_workers("state", seconds=chosen.pace.look_seconds)
    if _not_set_up(answer):
      console.show("The workers are not set up yet, so there is no run.")
      return
    _say_silence(answer, console)
    console.show("\n".join(sorted(answer.out.splitlines())))
    if not re.search(r"^byol-state \S+ (?!absent)", answer.out, re.MULTILINE):
      return
    _say_goodput(chosen, console, cloud, found.type or chosen.slice)
  elif found.state == "unknown":
    raise Ended(1, f"gcloud cannot say how {chosen.name} is: {found.error}")


def _say_goodput(
  chosen: Settings, console: Console, cloud: Cloud, slice_: str
) -> None:
  """Prints where the time of the run went, and what that time costs."""
  seconds = chosen.pace.look_seconds
  answer = cloud.on_workers("goodput", seconds=seconds, worker="0")
  lines = [x for x in answer.out.splitlines() if x.startswith("goodput ")]
  if not lines:
    why = answer.last_error or "worker 0 said nothing"
    console.say(f"Where the time of the run went is not known: {why}")
    return
  console.show(lines[-1])
  hours = bill.hours_of_attempts(lines[-1])
  asked = chosen.asked
  price = asked.number("price")
  cost = bill.estimate(slice_, chosen.zone, asked.spot, price, None)
  what = f"{slice_} in {chosen.zone}, {chosen.kind}"
  if hours is None or cost.hour is None:
    console.show(
      f"What it cost so far is not known: there is no price for {what}; "
      "--price=DOLLARS of a device-hour tells."
    )
    return
  console.show(
    f"These attempts cost ${cost.hour * hours:,.2f}: {hours:.2f} h of {what}, "
    f"at ${cost.hour:,.2f} an hour ({cost.source}). Setting up, waiting after "
    "the end and the bucket are not in it."
  )


def _logs(chosen: Settings, console: Console, cloud: Cloud) -> None:
  _need_slice(chosen, console, cloud, "so there are no logs")
  lines = str(chosen.pace.log_lines)
  answer = cloud.on_workers("logs", lines, seconds=LOG_SECONDS)
  _say_silence(answer, console)
  console.show(answer.out)


def _stop(chosen: Settings, console: Console, cloud: Cloud) -> None:
  _need_slice(chosen, console, cloud, "nothing was stopped")
  console.say(
    f"Ending the run on {chosen.name} after a save; this takes up to five "
    "minutes."
  )
  answer = cloud.on_workers("stop", seconds=END_SECONDS)
  _say_silence(answer, console)
  if answer.status:
    raise Ended(1, f"Not all workers could be told: {answer.last_error}")
  console.say(
    f"Stopped. {chosen.name} is still paid for; to delete it: "
    + chosen.own_command("delete")
  )


def _tensorboard(cloud: Cloud, console: Console) -> int:
  words = cloud.tensorboard(_TENSORBOARD_PORT)
  if console.dry_run:
    print(quoted(words))
    return 0
  console.say(f"Open http://localhost:{_TENSORBOARD_PORT}; Ctrl-C ends it.")
  return subprocess.call(words)
