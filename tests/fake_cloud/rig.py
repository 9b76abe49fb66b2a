"""The launcher on a fake Google Cloud: what the tests of launch/ share."""

import contextlib
import fcntl
import json
import os
import pathlib
import shlex
import signal
import subprocess
import time

from tests.fake_cloud.google import serving

ROOT = pathlib.Path(__file__).parents[2]
FAKE = ROOT / "tests" / "fake_cloud"
WORKDIR = "--workdir=gs://bucket/run"
# The slice stays, so that a test may look at it afterwards.
CONTROLLER = (
  "byol_digits",
  "--slice=v3-32",
  WORKDIR,
  "--delete=never",
  "--yes",
)
# Seconds for what takes one on a machine that is calm, and fails otherwise.
PATIENCE = 300


def git(folder, *arguments):
  identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
  command = ["git", "-C", str(folder), *identity, *arguments]
  return subprocess.run(
    command, check=True, capture_output=True, text=True
  ).stdout.strip()


class Rig:
  """A launcher, and a cloud in which some things go wrong."""

  def __init__(self, repository, folder):
    self.repository = repository
    self.folder = folder
    self.started = []
    self.plan()
    self.environment = {
      "HOME": str(folder),
      "PATH": f"{FAKE}:/usr/local/bin:/usr/bin:/bin",
      "FAKE_CLOUD": str(folder),
      "FAKE_GCLOUD": serving.address(),
      "CLOUDSDK_CORE_PROJECT": "my-project",
      "BYOL_POLL_SECONDS": "0.05",
      "BYOL_RETRY_SECONDS": "0.05",
    }

  def plan(self, **plan):
    text = json.dumps({"workers": 2, **plan})
    (self.folder / "plan.json").write_text(text)

  def forget(self):
    """Lets the cloud begin anew."""
    for name in ("state.json", "calls.jsonl"):
      (self.folder / name).unlink(missing_ok=True)

  def command(self, arguments):
    return [str(self.repository / "launch/tpu_vm.sh"), *arguments]

  def run(self, *arguments, status=0, timeout=600, **environment):
    result = subprocess.run(
      self.command(arguments),
      capture_output=True,
      text=True,
      env={**self.environment, **environment},
      timeout=timeout,
      check=False,
    )
    assert result.returncode == status, result.stderr
    return result

  def start(self, *arguments, stdin=None, stderr=subprocess.PIPE, ignored=()):
    def inherit():
      # A program answers no signal that was ignored when it started, as SIGINT
      # is in the background of another shell, and SIGHUP by nohup.
      for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
      for number in ignored:
        signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen(
      self.command(arguments),
      stdin=stdin,
      stdout=subprocess.PIPE,
      stderr=stderr,
      text=True,
      env=self.environment,
      preexec_fn=inherit,
    )
    self.started.append(process)
    return process

  def close(self):
    """Ends what a test that failed would leave running."""
    for process in self.started:
      process.kill()
      process.communicate()
    for name in ("tend", "guard"):
      for path in self.folder.glob(f"node*/*/{name}.pid"):
        with contextlib.suppress(ProcessLookupError):
          os.killpg(int(path.read_text()), signal.SIGKILL)
    for path in self.folder.glob("node*/*/unit"):
      if (path / "state").read_text() == "active":
        with contextlib.suppress(ProcessLookupError):
          os.killpg(int((path / "pid").read_text()), signal.SIGKILL)

  @property
  def calls(self):
    return whole_lines(self.folder / "calls.jsonl")

  @property
  def verbs(self):
    """What was asked, without the looks: create, delete, scp, and on workers:
    unpack, setup, start, ..."""
    verbs = [verb_of(call) for call in self.calls]
    looks = ("describe", "state", "newest")
    looks += ("storage", "compute", "projects")
    return [verb for verb in verbs if verb not in looks]

  @property
  def cloud(self):
    """What exists: "node", None if nothing is paid for, and "minutes"."""
    return json.loads((self.folder / "state.json").read_text())

  def change(self, change):
    """Gives the cloud's state to `change` between two calls of gcloud."""
    path = self.folder / "state.json"
    with (self.folder / "lock").open("w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      cloud = self.cloud
      change(cloud)
      path.write_text(json.dumps(cloud))

  @contextlib.contextmanager
  def holding(self, count, words):
    """Within it, the `count`th call of gcloud with `words` and later ones wait.

    Yields a function that returns when the first of them has come.
    """
    path = self.folder / "hold"
    path.write_text(f"{count} {words}")

    def wait():
      until = time.monotonic() + PATIENCE
      while sum(words in " ".join(call) for call in self.calls) < count:
        assert time.monotonic() < until, f"{words} did not come: {self.verbs}"
        time.sleep(0.05)

    try:
      yield wait
    finally:
      path.unlink()

  def wait_for(self, verb, count):
    until = time.monotonic() + PATIENCE
    while [verb_of(call) for call in self.calls].count(verb) < count:
      assert time.monotonic() < until, f"{verb} did not come: {self.verbs}"
      time.sleep(0.05)

  def worker(self, index):
    return self.folder / "node" / f"worker-{index}"

  def trainer_calls(self, index):
    return whole_lines(self.worker(index) / "trainer.jsonl")


def whole_lines(path):
  """Entries of a file to which others append; the last line may be torn."""
  text = path.read_text() if path.exists() else ""
  return [json.loads(line) for line in text.split("\n")[:-1]]


def verb_of(call):
  if call[:2] != ["compute", "tpus"]:
    return call[0]
  if call[3] != "ssh":
    return call[3]
  words = shlex.split(option(call, "--command"))
  return "unpack" if words[0] == "mkdir" else words[2]


def option(call, name):
  return next(
    word.partition("=")[2] for word in call if word.startswith(name + "=")
  )


# What follows a creation.
START = ["scp", "unpack", "setup", "check", "start"]
