"""Whether the slice may delete itself, asked before there is one."""

from __future__ import annotations

from launch.controller.calls import Console
from launch.controller.settings import Settings

_SECONDS = 120
_DELETING = (
  # Google's page of the roles of Cloud TPU has these two with tpu.nodes.delete,
  # cloud.google.com/iam/docs/roles-permissions/tpu.
  *("roles/tpu.admin", "roles/tpu.editor"),
  # They may create and delete resources of most services.
  *("roles/owner", "roles/editor"),
)
# What a run does in its buckets: it writes, reads, replaces and removes, or it
# only lists and reads (cloud.google.com/storage/docs/access-control/iam-roles).
WRITER = "roles/storage.objectAdmin"
READER = "roles/storage.objectViewer"
_POLICY_FORMAT = "value(bindings.role,bindings.members)"


def may_delete(chosen: Settings, console: Console) -> tuple[str, str]:
  """Asks for the roles of the account that the slice will have.

  The answer is "no" only where no role can hide the permission: roles of one's
  own and groups can. It does not know what a folder or an organization grants,
  so worker 0 asks again with its own account, see check.sh.

  Args:
    chosen: what was asked for.
    console: where programs are run.

  Returns:
    yes, no or unknown; and the e-mail address of the account, "" if unknown.
  """
  project, account = chosen.project, account_of(chosen, console)
  flags = ("--flatten=bindings[].members", f"--format={_POLICY_FORMAT}")
  policy = ("gcloud", "projects", "get-iam-policy", project, *flags)
  answer = console.run(policy, _SECONDS)
  if answer.status or not account:
    return "unknown", account
  return judge(answer.out, account), account


def account_of(chosen: Settings, console: Console) -> str:
  """The e-mail address of the account of the slice, "" if unknown."""
  account = chosen.asked.values.get("service-account", "")
  if account:
    return account
  # Google's page of service accounts: a VM without one of its own has this.
  words = ("projects", "describe", chosen.project)
  flags = ("--format=value(projectNumber)",)
  answer = console.run(("gcloud", *words, *flags), _SECONDS)
  number = (answer.out.split() or [""])[-1]
  if not number.isdigit():
    return ""
  return f"{number}-compute@developer.gserviceaccount.com"


def judge(policy: str, account: str) -> str:
  """Reads lines of a role, a tab and a member; see `may_delete`.

  A policy without a line is none that one could read.
  """
  answer = "no" if "\t" in policy else "unknown"
  for line in policy.splitlines():
    role, _, member = line.strip().partition("\t")
    if not member:
      continue
    ours = member == f"serviceAccount:{account}"
    if ours and role in _DELETING:
      return "yes"
    perhaps = role in _DELETING or not role.startswith("roles/")
    named = member.startswith(("user:", "serviceAccount:", "deleted:"))
    if perhaps and (ours or not named):
      answer = "unknown"
  return answer


def grant(project: str, account: str) -> str:
  """The command that gives an account the permission."""
  return (
    f"gcloud projects add-iam-policy-binding {project} "
    f"--member=serviceAccount:{account or 'ACCOUNT'} --role=roles/tpu.editor"
  )


def grant_bucket(path: str, account: str, role: str) -> str:
  """The command that gives an account a role on the bucket of a path."""
  bucket = "/".join(path.split("/")[:3])
  return (
    f"gcloud storage buckets add-iam-policy-binding {bucket} "
    f"--member=serviceAccount:{account or 'ACCOUNT'} --role={role}"
  )
