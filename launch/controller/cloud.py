"""One method for each thing that Google Cloud is asked, by gcloud."""

from __future__ import annotations

import dataclasses

from launch.controller import slices, states
from launch.controller.calls import Answer, Console
from launch.controller.settings import Settings
from launch.controller.words import escaped, quoted

_TPUS = ("gcloud", "compute", "tpus")


@dataclasses.dataclass(frozen=True)
class Slice:
  """The slice at one moment.

  Attributes:
    state: what it means for us, see `states.of_node`.
    seen: Google's word for it.
    type: its accelerator type, "" if not said.
    error: why the state is unknown.
  """

  state: str
  seen: str
  type: str = ""
  error: str = ""


class Cloud:
  """The slice of the settings.

  A dry run is told that each command succeeded, and that the slice exists once
  it was created.
  """

  def __init__(self, settings: Settings, console: Console) -> None:
    self._settings = settings
    self._console = console
    self._queued = settings.asked.queued
    self._created = False
    self._where = (f"--project={settings.project}", f"--zone={settings.zone}")

  def _call(self, group: str, verb: str, *flags: str) -> Answer:
    words = (*_TPUS, group, verb, self._settings.name, *self._where, *flags)
    return self._console.run(words)

  def _tpu_vm(self, verb: str, *flags: str) -> Answer:
    return self._call("tpu-vm", verb, *flags)

  def _queue(self, verb: str, *flags: str) -> Answer:
    return self._call("queued-resources", verb, *flags)

  def read_queue(self) -> tuple[str, str]:
    """(state, error) of the queued resource; ABSENT if there is none."""
    answer = self._queue("describe", "--format=value(state.state)")
    if self._console.dry_run:
      return ("ACTIVE" if self._created else "ABSENT"), ""
    return states.read(answer)[0], answer.last_error

  def read_slice(self) -> Slice:
    """How the slice is now."""
    if self._queued:
      state, error = self.read_queue()
      meaning = states.of_queue(state)
      if meaning:
        return Slice(meaning, state, error=error)
    answer = self._tpu_vm("describe", "--format=value(state,acceleratorType)")
    if self._console.dry_run:
      state, type_ = "READY" if self._created else "ABSENT", ""
    else:
      state, type_ = states.read(answer)
    meaning = states.of_node(state, self._queued)
    return Slice(meaning, state, type_, answer.last_error)

  def create(self) -> Answer:
    """Asks for the slice."""
    asked = self._settings.asked
    # --accelerator-type is always given, because gcloud's default is a v2-8. A
    # queue gets --async: it may take days, and we poll it ourselves.
    type_ = f"--accelerator-type={self._settings.slice}"
    version = slices.runtime_version(self._settings.slice)
    spot = ["--spot"] if asked.spot else []
    if self._queued:
      answer = self._queue(
        "create",
        f"--node-id={self._settings.name}",
        type_,
        f"--runtime-version={version}",
        *spot,
        "--async",
        "--quiet",
      )
    else:
      answer = self._tpu_vm(
        "create", type_, f"--version={version}", *spot, "--quiet"
      )
    self._created = answer.status == 0
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
      answer = console.run(self._deletion())
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

  def find_out_whether_queued(self) -> None:
    """If it was made through a queue, the queue would hold on to it."""
    if not self._queued and self.read_queue()[0] not in ("ABSENT", "UNKNOWN"):
      self._queued = True

  def copy(self, path: str) -> Answer:
    """Copies a file into the home folder of every worker."""
    words = (*_TPUS, "tpu-vm", "scp", path, f"{self._settings.name}:")
    return self._console.run((*words, *self._where, "--quiet", "--worker=all"))

  def shell(self, line: str) -> Answer:
    """Runs a line of shell on every worker at once."""
    return self._tpu_vm("ssh", "--quiet", "--worker=all", f"--command={line}")

  def on_workers(self, *words: str) -> Answer:
    """Runs worker.sh with a verb and its arguments on every worker."""
    return self.shell(worker_line(*words))

  def tensorboard(self, port: int) -> tuple[str, ...]:
    """The command that serves the metrics of worker 0 on our localhost.

    It listens on that machine's localhost, and ssh carries it to ours. With -t
    it ends with the ssh.
    """
    folder = f"{self._settings.workdir.rstrip('/')}/tensorboard"
    line = worker_line("tensorboard", folder, str(port))
    words = (*_TPUS, "tpu-vm", "ssh", self._settings.name, *self._where)
    tunnel = ("--", "-t", "-L", f"{port}:localhost:{port}")
    return (*words, "--quiet", "--worker=0", f"--command={line}", *tunnel)


def worker_line(*words: str) -> str:
  """The line that calls worker.sh, quoted for the worker's shell."""
  return escaped(("bash", "byol/current/launch/worker.sh", *words))
