"""launch/guard.sh: a slice that nobody sets up does not stay."""

import re
import shutil
import signal
import subprocess

import pytest

from launch.controller import guard
from tests.fake_cloud.rig import (
  CONTROLLER,
  FAKE,
  PATIENCE,
  ROOT,
  START,
  option,
  verb_of,
)
from tests.fake_cloud.workers import (
  start_workers,
  wait_for_deletion,
  wait_until,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow

SCRIPT = ROOT / "launch/guard.sh"
LATER = [word for word in CONTROLLER if "delete" not in word]
WHERE = "projects/my-project/locations/europe-west4-a"


def wait_on_worker(rig, index, **environment):
  """Runs to its end what the start-up script leaves to systemd."""
  return subprocess.run(
    ["bash", str(SCRIPT), "wait"],
    env={
      "HOME": str(rig.worker(index)),
      "PATH": f"{FAKE}/worker_bin:/usr/bin:/bin",
      "FAKE_HOST": f"t1v-n-fake-w-{index}",
      "BYOL_GUARD_SECONDS": "0",
      **environment,
    },
    capture_output=True,
    text=True,
    check=False,
    timeout=PATIENCE,
    start_new_session=True,  # a deletion kills everything that belongs to it
  )


@pytest.mark.parametrize(
  ("queue", "name"),
  [((), "nodes/byol-digits"), (("--queued",), "queuedResources/byol-digits")],
)
def test_a_slice_that_nobody_sets_up_deletes_itself(rig, queue, name):
  quick = {"BYOL_GUARD_SECONDS": "1", "BYOL_GUARD_RETRY_SECONDS": "0.1"}
  rig.plan(
    workers=2,
    python=str(FAKE / "trainer"),
    environment=[quick] * 2,
    states=["CREATING"] * 999,
    queue=["WAITING_FOR_RESOURCES"] * 999,
  )
  (rig.folder / "refuse-deletion").touch()
  (rig.folder / "hold-deletion").touch()  # while there is a launcher
  process = rig.start(*LATER, *queue)
  wait_until((rig.worker(1) / "guard.pid").exists)  # boots last
  process.kill()
  (rig.folder / "hold-deletion").unlink()
  asked = "?force=true" if queue else ""
  url = f"https://tpu.googleapis.com/v2/{WHERE}/{name}{asked}\n"
  assert wait_for_deletion(rig) == url
  token = "Authorization: Bearer secret-token\n"
  assert (rig.folder / "authorization").read_text() == 2 * token
  said = (rig.worker(0) / "guard.log").read_text()
  told = "byol: Nobody has set this slice up for 1 s: deleting.\n"
  refused = "curl: (22) The requested URL returned error: 403\n"
  assert said == f"{told}{refused}byol: It could not be deleted.\n{told}"
  assert not (rig.worker(0) / "startup-script").exists()
  assert (rig.worker(1) / "guard.log").read_text() == ""


@pytest.mark.parametrize("delete", ["done", "never"])
def test_ctrl_c_before_the_set_up_speaks_of_the_guard(rig, delete):
  rig.plan(states=["CREATING"] * 999)
  process = rig.start(*LATER, f"--delete={delete}")
  # Another call comes when the creation is over.
  wait_until(lambda: "create" in map(verb_of, rig.calls[:-1]))
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 130, errors
  assert "What was started goes on, and the slice is paid for." in errors
  told = "Without a set-up it deletes itself 60 minutes after its boot.\n"
  assert (told in errors) == (delete == "done")


def test_a_slice_that_was_set_up_is_left_to_tending(rig):
  start_workers(rig, {}, {})
  for index in (0, 1):
    path = rig.worker(index) / "metadata/byol-resource"
    path.write_text(f"{WHERE}/nodes/byol-digits")
  # As after a reboot.
  result = wait_on_worker(rig, 0)
  assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
  # Worker 0 alone acts, although the others may not be set up yet.
  (rig.worker(1) / "byol/byol-tend.service").unlink()
  assert wait_on_worker(rig, 1).returncode == 0
  assert not (rig.folder / "deletions").exists()


def test_what_the_controller_says_is_what_the_script_does():
  seconds = re.search(r"BYOL_GUARD_SECONDS:-(\d+)", SCRIPT.read_text())[1]
  assert int(seconds) == 60 * guard.MINUTES


@pytest.mark.parametrize(
  ("given", "entries"),
  [
    ((), {}),
    (
      ("--metadata", "enable-oslogin=TRUE,note=it's 5 o'clock"),
      {"enable-oslogin": "TRUE", "note": "it's 5 o'clock"},
    ),
    (("--metadata=^;^a=1,2;b=^3",), {"a": "1,2", "b": "^3"}),
    (("--metadata=^::^a=1,2;3::b=",), {"a": "1,2;3", "b": ""}),
    # A delimiter that the name of the resource has.
    (("--metadata=^/^a=1,2/b=3",), {"a": "1,2", "b": "3"}),
  ],
)
@pytest.mark.parametrize("queue", [(), ("--queued",)])
def test_the_metadata_of_a_person_reach_the_machines_beside_ours(
  rig, given, entries, queue
):
  rig.plan(states=[], queue=[])
  rig.run("up", *LATER, *queue, *given)
  kind = "queuedResources" if queue else "nodes"
  assert rig.cloud["node"]["metadata"] == {
    **entries,
    "byol-resource": f"{WHERE}/{kind}/byol-digits",
    "startup-script": SCRIPT.read_text(),
  }


def test_a_folder_with_a_comma_is_no_matter(rig, tmp_path):
  clone = tmp_path / "a,b"
  shutil.copytree(rig.repository, clone)
  rig.repository = clone
  rig.run("up", *LATER)
  assert rig.cloud["node"]["metadata"]["startup-script"] == SCRIPT.read_text()


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (("--metadata=startup-script=reboot,a=b", "--delete=done"), True),
    (("--delete=never",), False),
  ],
)
def test_a_slice_without_the_guard(rig, words, said):
  result = rig.run("up", *LATER, *words)
  create = next(call for call in rig.calls if verb_of(call) == "create")
  assert not any("byol-resource" in word for word in create)
  assert not any("metadata-from-file" in word for word in create)
  told = "--metadata has a startup-script, which takes the place of"
  assert (told in result.stderr) == said
  if said:
    assert option(create, "--metadata") == "startup-script=reboot,a=b"


@pytest.mark.parametrize("command", ["run", "up"])
@pytest.mark.parametrize(
  ("queue", "plan"),
  [
    (("--queued",), {"queue": ["WAITING_FOR_RESOURCES", "gone"]}),
    ((), {"states": ["gone"]}),
  ],
)
def test_a_controller_that_slept_finds_out_and_makes_nothing_anew(
  rig, command, queue, plan
):
  rig.plan(**plan)
  result = rig.run(command, *LATER, *queue, status=1)
  assert rig.verbs == ["create"]
  assert (
    "tpu_vm.sh: byol-digits is gone: it deleted itself, because nobody had set "
    "it up for 60 minutes, or somebody else deleted it; the same command makes "
    "it anew.\n" in result.stderr
  )
  assert "paid for" not in result.stderr
  rig.plan()
  (rig.folder / "state.json").unlink()
  rig.run(command, *LATER, *queue)
  begun = START[:3] if command == "up" else [*START, "delete"]
  assert rig.verbs == ["create", "create", *begun]


def test_without_the_guard_somebody_else_has_deleted_it(rig):
  rig.plan(queue=["WAITING_FOR_RESOURCES", "gone"])
  result = rig.run(*CONTROLLER, "--queued", status=1)
  assert "byol-digits was deleted by somebody else, so it is" in result.stderr


def test_a_systemd_that_does_not_answer_deletes_nothing(rig):
  start_workers(rig, {})
  (rig.worker(0) / "metadata/byol-resource").write_text(f"{WHERE}/nodes/n")
  (rig.worker(0) / "no-bus").touch()
  result = wait_on_worker(rig, 0, BYOL_GUARD_RETRY_SECONDS="0.1")
  assert result.returncode == 0
  told = "byol: systemd does not say whether it was set up: Failed to connect"
  assert result.stdout.startswith(told)
  assert not (rig.folder / "deletions").exists()
