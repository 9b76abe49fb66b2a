"""Arguments of a config file: `FILE:name=value,name=value`."""

import difflib
from typing import Any


def parse_arg(arg: str | None, **defaults: Any) -> dict[str, Any]:
  """Reads "epochs=100,architecture=resnet18" into typed values.

  Args:
    arg: text after the colon of `--config=FILE:ARG`; None or "" changes
      nothing.
    **defaults: every known name with its default, whose type the value gets.

  Returns:
    The defaults with the given values.

  Raises:
    ValueError: an unknown name, a value of another type, or no "=".
  """
  values = dict(defaults)
  for item in filter(None, (arg or "").split(",")):
    name, equals, text = item.partition("=")
    if name not in defaults:
      near = difflib.get_close_matches(name, defaults, n=1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ValueError(
        f"Unknown config argument {name!r}; known are "
        f"{', '.join(sorted(defaults))}.{hint}"
      )
    if not equals:
      raise ValueError(f"Config argument {item!r} has no value: write {name}=…")
    kind = type(defaults[name])
    try:
      values[name] = kind(text)
    except ValueError:
      raise ValueError(
        f"Config argument {name} is {text!r}; expected {kind.__name__}, such "
        f"as {defaults[name]}."
      ) from None
  return values
