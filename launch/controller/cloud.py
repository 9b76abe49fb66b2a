"""One method for each thing that Google Cloud is asked, by gcloud."""

from __future__ import annotations

import dataclasses

from launch.controller import arguments, disk, guard, slices, states
from launch.controller.calls import Answer, Console
from launch.controller.settings import Settings
from launch.controller.states import Slice
from launch.controller.words import escaped, quoted

_TPUS = ("gcloud", "compute", "tpus")
# gcloud tries ssh ten times, and ssh by itself waits for minutes (SDK 528,
# googlecloudsdk/command_lib/compute/tpus/tpu_vm/ssh.py, AttemptRunWithRetries).
_SSH = (
  *("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15"),
  *("-o", "ServerAliveCountMax=4"),
)
_DELETE_SECONDS = 900


class Cloud:
  """The slice of the settings.

  A dry run is told that each command succeeded, and that the slice exists once
  it was created.
  """

  def __init__(self, settings: Settings, console: Console) -> None:
    self._settings = settings
    self._console = console
    self._queued: bool | None = None  # not known yet
    self._created = False
    self._where = (f"--project={settings.project}", f"--zone={settings.zone}")
    inside = "internal-ip" in settings.asked.flags
    self._inside = ("--internal-ip",) if inside else ()
    self.workers = 0  # as Google says; 0 while it does not

  def _call(self, group: str, verb: str, *flags: str, seconds: float) -> Answer:
    words = (*_TPUS, group, verb, self._settings.name, *self._where, *flags)
    return self._console.run(words, seconds)

  @property
  def resource(self) -> str:
    """The name of what is deleted, as the TPU API spells it."""
    where = f"projects/{self._settings.project}/locations/{self._settings.zone}"
    kind = "queuedResources" if self._queued else "nodes"
    return f"{where}/{kind}/{self._settings.name}"

  def _read_queue(self) -> Slice:
    """How the queued resource is; absent if there is none."""
    answer = self._call(
      "queued-resources",
      "describe",
      f"--format={states.QUEUE_FORMAT}",
      seconds=self._settings.pace.look_seconds,
    )
    if self._console.dry_run:
      return Slice("" if self._created else "absent", "")
    return states.of_queue(answer)

  def read_slice(self) -> Slice:
    """How the slice is now.

    The first look finds out whether it was made through a queue, whatever was
    asked for, because a queue holds on to its slice until it is deleted itself.
    """
    if self._queued is not False:
      found = self._read_queue()
      if found.state == "absent":
        self._queued = False
      elif found.state != "unknown":
        self._queued = True
      tells = found.state not in ("", "absent")
      if tells and (self._queued or self._settings.asked.queued):
        return found
    answer = self._call(
      "tpu-vm",
      "describe",
      f"--format={states.NODE_FORMAT}",
      seconds=self._settings.pace.look_seconds,
    )
    if self._console.dry_run:
      return Slice("ready" if self._created else "absent", "")
    queued = self._queued is True
    found = states.of_node(answer, queued, self._settings.asked.spot)
    self.workers = found.workers or self.workers
    return found

  def elsewhere(self) -> list[str]:
    """Other zones with a slice of that name, of those that the config has."""
    chosen, found = self._settings, []
    for zone in slices.zones_of(chosen.asked.config):
      if zone != chosen.zone:
        there = Cloud(dataclasses.replace(chosen, zone=zone), self._console)
        if there.read_slice().state not in ("absent", "unknown"):
          found.append(zone)
    return found

  def create(self) -> Answer:
    """Asks for the slice."""
    asked = self._settings.asked
    self._queued = asked.queued
    # --accelerator-type is always given, because gcloud's default is a v2-8. A
    # queue gets --async: it may take days, and we poll it ourselves.
    type_ = f"--accelerator-type={self._settings.slice}"
    version = slices.runtime_version(self._settings.slice)
    more = ["--spot"] if asked.spot else []
    for name in arguments.CREATE_FLAGS:
      more += [f"--{name}"] if name in asked.flags else []
    for name in arguments.CREATE_VALUES:
      more += [f"--{name}={asked.values[name]}"] if name in asked.values else []
    more += guard.flags(self._settings, self.resource)
    more += disk.flags(self._settings)
    if self._queued:
      named = (f"--node-id={self._settings.name}", type_)
      flags = (*named, f"--runtime-version={version}", *more, "--async")
      group = "queued-resources"
    else:
      flags = (type_, f"--version={version}", *more)
      group = "tpu-vm"
    # gcloud waits for the slice, and takes its time like every question.
    pace = self._settings.pace
    seconds = max(pace.stuck_seconds, pace.look_seconds)
    answer = self._call(group, "create", *flags, "--quiet", seconds=seconds)
    self._created = answer.status == 0
    self.workers = 0
    return answer

  def _deletion(self) -> tuple[str, ...]:
    group = "queued-resources" if self._queued else "tpu-vm"
    force = ("--force",) if self._queued else ()
    name = self._settings.name
    return (*_TPUS, group, "delete", name, *self._where, *force, "--quiet")

  def delete(self) -> bool:
    """Deletes the slice and looks whether it is gone; False if it stayed."""
    name, console = self._settings.name, self._console
    for _ in range(self._settings.pace.max_tries):
      console.say(f"Deleting {name}.")
      answer = console.run(self._deletion(), _DELETE_SECONDS)
      if answer.status:
        console.say(f"Refused: {answer.last_error}")
      if console.dry_run:
        return True
      if self.read_slice().state == "absent":
        console.say(f"{name} is deleted; it costs nothing any more.")
        return True
      console.pause(self._settings.pace.retry_seconds)
    console.say(
      f"{name} could not be deleted and is still paid for. By hand:\n"
      + quoted(self._deletion())
    )
    return False

  def copy(self, path: str, seconds: float) -> Answer:
    """Copies a file into the home folder of every worker."""
    words = (*_TPUS, "tpu-vm", "scp", path, f"{self._settings.name}:")
    flags = (*self._where, *self._inside, "--quiet", "--worker=all")
    return self._console.run((*words, *flags), seconds)

  def shell(self, line: str, seconds: float, worker: str = "all") -> Answer:
    """Runs a line of shell on every worker at once, or on one."""
    flags = (*self._inside, "--quiet", f"--worker={worker}")
    command = f"--command={line}"
    return self._call(
      "tpu-vm", "ssh", *flags, command, "--", *_SSH, seconds=seconds
    )

  def on_workers(
    self, *words: str, seconds: float, worker: str = "all"
  ) -> Answer:
    """Runs worker.sh with a verb and its arguments on every worker."""
    return self.shell(worker_line(*words), seconds, worker)

  def tensorboard(self, port: int) -> tuple[str, ...]:
    """The command that serves the metrics of worker 0 on our localhost.

    It listens on that machine's localhost, and ssh carries it to ours. With -t
    it ends with the ssh.
    """
    folder = f"{self._settings.workdir}/tensorboard"
    line = worker_line("tensorboard", folder, str(port))
    words = (*_TPUS, "tpu-vm", "ssh", self._settings.name, *self._where)
    flags = (*self._inside, "--quiet", "--worker=0", f"--command={line}")
    return (*words, *flags, "--", "-t", "-L", f"{port}:localhost:{port}")


def worker_line(*words: str) -> str:
  """The line that calls worker.sh, quoted for the worker's shell."""
  return escaped(("bash", "byol/current/launch/worker.sh", *words))
