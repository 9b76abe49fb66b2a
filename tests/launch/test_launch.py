"""The launcher's loop on a fake Google Cloud, see tests/fake_cloud/google."""

import re
import signal
import subprocess

import pytest

from tests.fake_cloud.rig import CONTROLLER, PATIENCE, START, git, verb_of

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow

NO_CAPACITY = 'There is no more capacity in the zone "europe-west4-a"'

# --- the loop -----------------------------------------------------------------


def test_a_run_goes_from_nothing_to_its_results(rig):
  rig.plan(runs=[{"polls": 2, "codes": [0, 0]}])
  result = rig.run(*CONTROLLER)
  assert rig.verbs == ["create", *START]
  create = next(call for call in rig.calls if verb_of(call) == "create")
  assert create == [
    *("compute", "tpus", "tpu-vm", "create", "byol-digits"),
    *("--project=my-project", "--zone=europe-west4-a"),
    *("--accelerator-type=v3-32", "--version=tpu-ubuntu2204-base"),
    *("--spot", "--quiet"),
  ]
  assert "Done. Results: gs://bucket/run" in result.stderr
  assert "still paid for" in result.stderr
  assert result.stdout == ""


def test_the_slice_is_deleted_when_done_only_if_asked(rig):
  result = rig.run(*CONTROLLER, "--delete-when-done")
  assert rig.verbs == ["create", *START, "delete"]
  assert "costs nothing any more" in result.stderr


def test_it_waits_for_capacity(rig):
  rig.plan(create=[NO_CAPACITY, "RESOURCE_EXHAUSTED"])
  result = rig.run(*CONTROLLER, BYOL_MAX_TRIES="1")
  assert rig.verbs == ["create"] * 3 + START
  assert result.stderr.count("No capacity for v3-32") == 2


def test_it_does_not_wait_for_quota(rig):
  rig.plan(create=["RESOURCE_EXHAUSTED: Quota limit TPUV3 has been exceeded"])
  result = rig.run(*CONTROLLER, status=1)
  assert rig.verbs == ["create"]
  assert "for want of quota: ERROR" in result.stderr
  assert "WARNING" not in result.stderr


def test_a_creation_that_fails_otherwise_is_tried_a_few_times(rig):
  rig.plan(create=["code 13: internal error"] * 9)
  result = rig.run(*CONTROLLER, status=1, BYOL_MAX_TRIES="2")
  assert rig.verbs == ["create"] * 2
  assert "internal error" in result.stderr


def test_a_run_preempted_twice_is_made_anew_twice(rig):
  rig.plan(
    runs=[
      {"polls": 2, "node": "PREEMPTED"},
      {"polls": 1, "node": "TERMINATED"},
      {"polls": 1, "codes": [0, 0]},
    ]
  )
  result = rig.run(*CONTROLLER, BYOL_MAX_RESTARTS="0")
  again = ["delete", "create", *START]
  assert rig.verbs == ["create", *START, *again, *again]
  assert "byol-digits is PREEMPTED; making it anew" in result.stderr


def test_a_save_before_a_preemption_is_no_fault(rig):
  codes = [[75, 75], [75, 143], [0, 75], [75, 0]]
  rig.plan(runs=[{"polls": 0, "codes": pair} for pair in codes])
  rig.run(*CONTROLLER, BYOL_MAX_RESTARTS="0")
  assert rig.verbs == ["create", *START * 5]


def test_ssh_that_fails_three_times_is_tried_again(rig):
  rig.plan(scp=["Connection refused"] * 3, ssh=["ok", "Broken pipe"])
  result = rig.run(*CONTROLLER)
  assert rig.verbs == ["create", *["scp"] * 4, "unpack", *START]
  assert "Connection refused" in result.stderr


def test_ssh_that_fails_while_watching_harms_nothing(rig):
  before_the_watch = 6  # state, unpack, setup, check, state, start
  rig.plan(
    runs=[{"polls": 1, "codes": [0, 0]}],
    ssh=["ok"] * before_the_watch + ["Connection timed out"] * 3,
  )
  result = rig.run(*CONTROLLER, BYOL_MAX_TRIES="1", BYOL_MAX_RESTARTS="0")
  assert rig.verbs == ["create", *START]
  assert result.stderr.count("Connection timed out") == 3


def test_a_check_without_an_answer_is_repeated(rig):
  rig.plan(ssh=["ok"] * 3 + ["Connection refused"])
  rig.run(*CONTROLLER, BYOL_MAX_RESTARTS="0")
  assert rig.verbs == ["create", *START[:3], "check", *START[3:]]


def test_gcloud_that_fails_while_watching_harms_nothing(rig):
  rig.plan(
    runs=[{"polls": 3, "codes": [0, 0]}],
    describe=["ok"] * 5 + ["token expired"] * 3,
  )
  result = rig.run(*CONTROLLER, BYOL_MAX_TRIES="1")
  assert rig.verbs == ["create", *START]
  assert result.stderr.count("token expired") == 3


def test_a_set_up_that_fails_on_one_worker_is_repeated(rig):
  rig.plan(setup=[[1]])
  result = rig.run(*CONTROLLER)
  assert rig.verbs == ["create", "scp", "unpack", "setup", *START[2:]]
  assert "t1v-n-fake-w-1: no space left on device" in result.stderr


def test_a_set_up_that_keeps_failing_ends_with_the_worker_named(rig):
  rig.plan(setup=[[1]] * 9)
  result = rig.run(*CONTROLLER, status=1, BYOL_MAX_TRIES="3")
  assert rig.verbs == ["create", "scp", "unpack"] + ["setup"] * 3
  assert "t1v-n-fake-w-1: no space left on device" in result.stderr
  assert "still paid for; to delete it:" in result.stderr


def test_a_crash_is_restarted_a_few_times_with_all_logs(rig):
  rig.plan(runs=[{"polls": 1, "codes": [134, 1], "saves": False}] * 9)
  result = rig.run(*CONTROLLER, status=1)
  again = [*START, "logs"]
  assert rig.verbs == ["create", *again, *again, "delete", "create", *again]
  for worker in (0, 1):
    line = f"t1v-n-fake-w-{worker}: the end of the log of worker {worker}"
    assert result.stderr.count(line) == 3
  assert "The run ended with 1. 3 attempts in a row" in result.stderr
  assert "still paid for" in result.stderr


def test_a_wrong_config_is_never_restarted(rig):
  rig.plan(runs=[{"polls": 0, "codes": [134, 2]}] * 9)
  result = rig.run(*CONTROLLER, status=2)
  assert rig.verbs == ["create", *START, "logs"]
  assert "the end of the log of worker 1" in result.stderr


def test_a_worker_that_hangs_when_others_have_ended_is_ended(rig):
  rig.plan(runs=[{"polls": 0, "codes": [134, "running"]}])
  result = rig.run(*CONTROLLER, BYOL_STRAGGLER_SECONDS="1")
  assert rig.verbs == ["create", *START, "halt", "logs", *START]
  assert "others hang" in result.stderr


def test_a_refused_delete_is_repeated(rig):
  rig.plan(delete=["the node is being updated"] * 2)
  rig.run(*CONTROLLER, "--delete-when-done")
  assert rig.verbs == ["create", *START, *["delete"] * 3]


def test_a_delete_that_stays_refused_says_that_money_is_spent(rig):
  rig.plan(delete=["PERMISSION_DENIED"] * 9)
  result = rig.run(
    *CONTROLLER, "--delete-when-done", status=1, BYOL_MAX_TRIES="2"
  )
  assert rig.verbs == ["create", *START, *["delete"] * 2]
  assert "PERMISSION_DENIED" in result.stderr
  assert "could not be deleted and is still paid for" in result.stderr
  last = result.stderr.splitlines()[-1]
  subprocess.run(["bash", "-c", last], env=rig.environment, check=False)
  assert rig.verbs[-1] == "delete"
  assert len(rig.verbs) == 9


def test_a_queue_is_waited_for_and_made_anew_when_suspended(rig):
  rig.plan(
    queue=["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"],
    runs=[{"polls": 1, "node": "PREEMPTED"}],
  )
  rig.run(*CONTROLLER, "--queued", "--delete-when-done")
  again = ["delete", "create", *START]
  assert rig.verbs == ["create", *START, *again, "delete"]
  changes = [
    call for call in rig.calls if verb_of(call) in ("create", "delete")
  ]
  assert {call[2] for call in changes} == {"queued-resources"}
  assert "--node-id=byol-digits" in changes[0]
  assert "--spot" in changes[0]


def test_on_demand_slices_are_not_spot(rig):
  rig.run(*CONTROLLER, "--on-demand")
  assert not any("--spot" in call for call in rig.calls)


# --- two people, two terminals ------------------------------------------------


@pytest.mark.parametrize(
  ("signal_number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_an_interrupted_controller_leaves_the_run_alive(
  rig, signal_number, status
):
  rig.plan(runs=[{"polls": 9999, "codes": [0, 0]}])
  process = rig.start(*CONTROLLER, "--config.seed=1", "--delete-when-done")
  rig.wait_for("state", 3)
  process.send_signal(signal_number)
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == status, errors
  assert rig.verbs == ["create", *START]
  commands = dict(
    re.findall(r"  to (watch|stop the run|stop paying)[^:]*: +(.*)", errors)
  )
  assert set(commands) == {"watch", "stop the run", "stop paying"}

  # Pasted, the first one attaches to the run and starts nothing.
  rig.change(lambda cloud: cloud["run"].update(polls=2))
  result = subprocess.run(
    ["bash", "-c", commands["watch"]],
    capture_output=True,
    text=True,
    env=rig.environment,
    check=True,
    timeout=PATIENCE,
  )
  commit = git(rig.repository, "rev-parse", "HEAD")
  assert f"Watching the run that was started from commit {commit}" in (
    result.stderr
  )
  assert rig.verbs == ["create", *START, "retend", "delete"]


def test_stop_in_another_terminal_ends_the_controller_too(rig):
  rig.plan(runs=[{"polls": 999}])
  process = rig.start(*CONTROLLER)
  rig.wait_for("state", 3)
  rig.run("stop", "byol_digits")
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 75, errors
  assert rig.verbs == ["create", *START, "stop"]
  assert "still paid for" in errors


def test_a_slice_deleted_by_somebody_is_not_made_anew(rig):
  rig.plan(runs=[{"polls": 999}])
  process = rig.start(*CONTROLLER)
  rig.wait_for("state", 3)
  rig.run("delete", "byol_digits")
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 1, errors
  assert rig.verbs == ["create", *START, "delete"]
  assert "was deleted by somebody else" in errors


def test_a_slice_deleted_in_its_set_up_is_not_made_anew(rig):
  with rig.holding(1, "worker.sh setup") as wait:
    process = rig.start(*CONTROLLER, "--delete=always")
    wait()
    rig.run("delete", "byol_digits")
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 1, errors
  assert rig.verbs.count("create") == rig.verbs.count("delete") == 1
  assert "or somebody else deleted it; the same command" in errors


def test_a_slice_on_which_something_ran_was_not_deleted_by_the_guard(rig):
  rig.plan(runs=[{"polls": 0, "codes": [75, 75], "saves": False}])
  words = [word for word in CONTROLLER if "delete" not in word]
  rig.run(*words, status=1, BYOL_MAX_RESTARTS="0")
  with rig.holding(2, "tpu-vm scp") as wait:
    process = rig.start(*words)
    wait()
    rig.run("delete", "byol_digits")
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 1
  assert "byol-digits was deleted by somebody else, so it is" in errors


def test_stop_between_two_attempts_ends_the_controller(rig):
  rig.plan(runs=[{"polls": 0, "codes": [75, 75]}, {"polls": 999}])
  # The fourth look at the workers is the first one after the attempt.
  with rig.holding(4, "worker.sh state") as wait:
    process = rig.start(*CONTROLLER)
    wait()
    assert any("Resuming" in line for line in process.stderr)
    rig.run("stop", "byol_digits")
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 75, errors
  assert rig.verbs == ["create", *START, "stop"]
  rig.start(*CONTROLLER)  # is meant to resume it
  rig.wait_for("start", 2)


def test_another_run_on_the_slice_is_left_alone(rig):
  rig.plan(runs=[{"polls": 999}])
  process = rig.start(*CONTROLLER)
  rig.wait_for("state", 3)
  process.terminate()
  process.communicate(timeout=PATIENCE)
  asked = ("--config.seed=1", "--delete=always")
  result = rig.run(*CONTROLLER, *asked, status=2)
  assert rig.verbs == ["create", *START]
  assert "runs something else" in result.stderr


def test_a_slice_of_another_size_is_not_adopted(rig):
  rig.run("up", "byol_digits", "--slice=v3-8")
  result = rig.run(*CONTROLLER, "--delete=always", status=2)
  assert rig.verbs == ["create", *START[:3]]
  assert "byol-digits is a v3-8, not a v3-32" in result.stderr


def test_a_run_that_is_done_is_not_started_again(rig):
  rig.run(*CONTROLLER)
  rig.run(*CONTROLLER, "--delete-when-done")
  assert rig.verbs == ["create", *START, "delete"]


def test_a_run_that_was_half_started_is_started_whole(rig):
  rig.plan(runs=[{"polls": 0, "codes": ["running", 75]}])
  process = rig.start(*CONTROLLER)
  rig.wait_for("state", 3)
  process.terminate()
  process.communicate(timeout=PATIENCE)
  rig.run(*CONTROLLER)
  assert rig.verbs == ["create", *START, "halt", *START]


def test_a_run_that_lost_a_worker_is_resumed(rig):
  rig.plan(runs=[{"polls": 0, "codes": ["absent", 0]}])
  result = rig.run(*CONTROLLER, BYOL_MAX_RESTARTS="0")
  assert rig.verbs == ["create", *START, *START]
  assert "A worker went down and lost its run." in result.stderr
