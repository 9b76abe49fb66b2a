"""Bootstrap Your Own Latent in JAX and Flax.

For notebooks and programs there is `load_encoder`:

  import byol_flax
  encoder = byol_flax.load_encoder("runs/digits")
  y = encoder(encoder.preprocess(images))  # float32 [B, F]

`main` is the `byol` command, `commands` has one file for each of its verbs. The
rooms below it are listed from the lowest up in `tests/test_layering.py`.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["Encoder", "load_encoder"]

# JAX takes seconds to import, so it is imported once a name is asked for.
if TYPE_CHECKING:
  from byol_flax.api import Encoder, load_encoder
else:

  def __getattr__(name: str) -> Any:
    if name not in __all__:
      raise AttributeError(f"module 'byol_flax' has no attribute {name!r}")
    from byol_flax import api

    return getattr(api, name)

  def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
