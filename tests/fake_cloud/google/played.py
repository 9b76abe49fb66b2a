"""What workers answer on which nothing really runs."""

import re
import sys


def answer(cloud, worker, words, failing):
  """Exit status of a worker that does not really run; prints its lines."""
  host = f"t1v-n-fake-w-{worker}"
  state = cloud.state
  if words[:2] != ["bash", "byol/current/launch/worker.sh"]:
    assert re.match(r"mkdir -p byol/code-[0-9a-f]{40} && tar ", " ".join(words))
    state["code"] = words[2].removeprefix("byol/code-")
    return 0
  verb, *rest = words[2:]
  silent = (state["run"] or {}).get("silent") or []
  if worker in silent and verb in ("state", "halt", "logs"):
    # As gcloud prints after ten tries, command_lib/compute/tpus/tpu_vm/ssh.py.
    error = "[/usr/bin/ssh] exited with return code [255]."
    print(f"Retrying: SSH command error: {error}", file=sys.stderr)
    return 255
  if verb == "setup" and len(rest) > 1:  # before, it was told the workdir only
    assert rest[1] in ("never", "hours", "done", "always"), rest
    assert rest[2] == "-" or int(rest[2]) >= 0, rest
    assert rest[3].startswith("projects/"), rest
  if verb == "setup":
    state["node"].pop("guard", None)  # byol-tend is there from now on
  if verb == "setup" and worker in failing:
    print(f"{host}: no space left on device", file=sys.stderr)
    return 1
  if verb == "start" and worker == 0:
    run = {"polls": 0, "codes": [0] * len(cloud.workers)}
    if state["node"]["blind"] or state["node"]["shut"]:
      run |= {"codes": [1] * len(cloud.workers), "saves": False}
    else:
      run = cloud.next("runs", run)
    state["run"] = {"id": rest[0], "stopped": False, **run}
    state["halted"] = False
    if not rest[1].startswith("--config="):
      assert re.fullmatch(r"[0-9]{8}-[0-9]{6}", rest[1]), rest
      assert rest[2] in ("never", "done", "always"), rest
      assert rest[3] == "-" or int(rest[3]) >= 0, rest
      state["run"]["attempt"], state["run"]["left"] = rest[1], rest[3]
    if state["run"].get("saves", True):
      state["checkpoint"] += 1
  if verb == "check":
    answer = "failed RuntimeError: no TPU" if worker in failing else "ok 8"
    if worker in state["busy"]:
      answer = "held Process 7 (notebook) holds the TPU; end it first."
    print(f"byol-check {host} {answer}")
    if worker in state["node"]["shut"]:
      print(f"byol-folder {host} cannot write to the workdir {rest[1]}: full")
    if worker == 0 and state["node"].get("taken"):
      other = "projects/p/locations/z/nodes/other runs there"
      print(f"byol-taken {host} cannot use the workdir {rest[1]}: {other}")
    if worker == 0:
      print(f"byol-may {host} {cloud.plan.get('may', 'yes')}")
    return 0
  if verb == "disk":
    # As mount(8) of util-linux says it.
    error = "failed mount: /mnt/disks/data: wrong fs type, bad option, bad"
    print(f"byol-disk {host} {error if worker in failing else 'ok -'}")
    return 0
  if verb == "newest":
    print(f"byol-newest {host} {state['checkpoint']}")
    return 0
  if verb == "state":
    return print_worker_state(cloud, worker, host)
  if verb == "logs":
    print(f"{host}: the end of the log of worker {worker}")
  if verb == "goodput":
    print(cloud.plan.get("goodput", ""))
    return 0
  if verb in ("stop", "halt"):
    state["halted"] = True
    if state["run"] and verb == "stop":
      codes = [75] * len(cloud.workers)
      state["run"].update(stopped=True, polls=0, codes=codes)
  if verb == "retend":
    assert rest[0] in ("never", "done", "always"), rest
    assert rest[1] == "-" or int(rest[1]) >= 0, rest
    return 0
  assert verb in ("setup", "start", "logs", "stop", "halt"), verb
  return 0


def print_worker_state(cloud, worker, host):
  run = cloud.state["run"]
  if run is None:
    path = "byol/current/launch/worker.sh"
    print(f"bash: {path}: No such file or directory", file=sys.stderr)
    return 127
  code = run["codes"][worker] if run.get("codes") else 0
  if code == "running" and cloud.state["halted"]:
    code = 137
  word = "stopped" if run["stopped"] else "exited"
  if run.get("polls", 0) > 0 or code == "running":
    word, code = "running", "-"
  if code in ("absent", "lost"):
    word, code = code, "-"
  commit = cloud.state["code"]
  more = [run[key] for key in ("attempt", "left") if key in run]
  print("byol-state", host, word, code, run["id"], commit, *more)
  return 0


def after_look(cloud, words):
  run = cloud.state["run"]
  if words[-1] == "state" and run is not None:
    run["polls"] = run.get("polls", 0) - 1
    if run["polls"] <= 0 and run.get("node"):
      follows = run.pop("node")
      follows = follows if isinstance(follows, list) else [follows]
      cloud.state["node"]["states"] = follows
    if run["polls"] <= 0 and run.get("deleted"):
      cloud.state["node"] = None
