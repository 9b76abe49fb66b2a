"""What every row of the paper's ablations changes, in the paper's own values.

ROWS is table -> row -> {key of configs/byol.py: value}. All that a row does not
name is as in the ablations' baseline, `configs/byol.py:epochs=300`. What the
paper found for each row stands in byol_flax/reports/ablations.py, by the same
names. Tables and appendices are those of arXiv v3.
"""

from typing import Any

# Key of a config -> value.
Changes = dict[str, Any]

_TARGETS = {
  "target": "average",
  "stopped": "online_stopped",
  "online": "online",
}
_BATCH_SIZE = 4096
_BATCH_SIZES = (4096, 2048, 1024, 512, 256, 128, 64)
_VIEWS = ("view1", "view2")
_FACTORS = (1.0, 1.5, 2.0, 5.0, 10.0)


def _objective(predictor: bool, target: str, weight: float) -> Changes:
  """A row of Tables 5b and 19 (§9.4 of the fact sheet, App. F.4)."""
  changes: Changes = {"objective.target": _TARGETS[target]}
  if not predictor:
    changes["model.predictor.layers"] = 0
  if weight:
    changes["objective.negatives_weight"] = weight
  return changes


def _objectives(*names: str) -> dict[str, Changes]:
  """Rows by names such as predictor_target_1, the last part being β."""
  rows = {}
  for name in names:
    *predictor, target, weight = name.split("_")
    rows[name] = _objective(bool(predictor), target, float(weight))
  return rows


# The authors' reproduction of SimCLR. Its loss lacks the factor 2α of Table 5b,
# and its head is SimCLR's; both cost it 1.5 points (App. F.5). That the last
# layer is normalised is inferred from SimCLR's own code.
_SIMCLR: Changes = {
  **_objective(False, "online", 1.0),
  "objective.multiplier": 5.0,
  "model.projector.hidden_size": 2048,
  "model.projector.output_size": 128,
  "model.projector.final_norm": True,
  "model.predictor.output_size": 128,
}


def _both(rows: dict[str, Changes]) -> dict[str, Changes]:
  """The columns of BYOL and of SimCLR."""
  return {
    f"{method}_{name}": {**of_method, **changes}
    for method, of_method in (("byol", {}), ("simclr", _SIMCLR))
    for name, changes in rows.items()
  }


def _off(*operations: str, views: tuple[str, ...] = _VIEWS) -> Changes:
  """Leaves operations of the augmentation out."""
  return {
    f"augment.{view}.{operation}_probability": 0.0
    for view in views
    for operation in operations
  }


def _multiplied(predictor: float, projector: float = 1.0) -> Changes:
  """No target network, and other learning rates for the heads (App. I)."""
  return {
    "objective.target": "online_stopped",
    "optimizer.predictor_multiplier": predictor,
    "optimizer.projector_multiplier": projector,
  }


# Rows with "no" keep all else, and rows with "crop" have nothing beside what
# they name; the paper does not say so of flips and solarization.
_AUGMENTATIONS: dict[str, Changes] = {
  "baseline": {},
  "no_flip": _off("flip"),
  "no_blur": _off("blur"),
  "no_colour": _off("jitter", "grayscale"),
  "no_jitter": _off("jitter"),
  "no_grayscale": _off("grayscale"),
  "no_blur_in_view2": _off("blur", views=("view2",)),
  "no_solarize_in_view2": _off("solarize", views=("view2",)),
  "no_blur_no_solarize_in_view2": _off("blur", "solarize", views=("view2",)),
  "symmetric": {
    f"augment.{view}.{operation}_probability": probability
    for view in _VIEWS
    for operation, probability in (("blur", 0.5), ("solarize", 0.2))
  },
  "crop": _off("flip", "jitter", "grayscale", "blur", "solarize"),
  "crop_flip": _off("jitter", "grayscale", "blur", "solarize"),
  "crop_colour": _off("flip", "blur", "solarize"),
  "crop_blur": _off("flip", "jitter", "grayscale", "solarize"),
}

ROWS: dict[str, dict[str, Changes]] = {
  "5a": {
    # Of the network of the next row before its first update.
    "initialisation": {"base_target_decay": 1.0},
    "1": {"base_target_decay": 1.0},
    "0.999": {"base_target_decay": 0.999},
    "0.99": {"base_target_decay": 0.99},
    "0.9": {"base_target_decay": 0.9},
    # τ = 0 throughout, which no schedule lifts.
    "stop_gradient": {"objective.target": "online_stopped"},
  },
  "5b": _objectives(
    "predictor_target_0",
    "predictor_target_1",
    "target_1",
    "online_1",
    "predictor_online_1",
    "predictor_online_0",
    "target_0",
    "online_0",
  ),
  "14": {
    **{
      f"projector_{projector}_predictor_{predictor}": {
        "model.projector.layers": projector,
        "model.predictor.layers": predictor,
      }
      for projector in (1, 2, 3)
      for predictor in (1, 2, 3)
    },
    # Both, because they are compared with each other.
    **{
      f"output_{size}": {
        "model.projector.output_size": size,
        "model.predictor.output_size": size,
      }
      for size in (16, 32, 64, 128, 256, 512)
    },
  },
  "15": {
    **{
      f"learning_rate_{rate:g}": {"base_learning_rate": rate}
      for rate in (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
    },
    **{
      f"weight_decay_{name}": {"optimizer.weight_decay": float(name)}
      for name in ("0", "1e-7", "5e-7", "1e-6", "5e-6", "1e-5")
    },
  },
  # One batch in N parts, of 4096 / N images each (App. F.2).
  "16": _both(
    {
      f"{size}": {"accumulation_steps": _BATCH_SIZE // size}
      for size in _BATCH_SIZES
    }
  ),
  "17": _both(_AUGMENTATIONS),
  "18": {
    "beta_0": {},
    **{
      f"alpha_{temperature:g}_beta_{weight:g}": {
        "objective.temperature": temperature,
        "objective.negatives_weight": weight,
      }
      for temperature in (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
      for weight in (0.1, 0.5, 1.0)
    },
  },
  "19": _objectives(
    "predictor_target_0",
    "predictor_target_1",
    "target_1",
    "predictor_stopped_1",
    "online_1",
    "stopped_1",
    "predictor_online_1",
    "predictor_stopped_0",
    "predictor_online_0",
    "target_0",
    "stopped_0",
    "online_0",
  ),
  "20": {
    name: {"objective.normalization": name}
    for name in ("l2", "layer_norm", "none", "batch_norm")
  },
  "21": {
    **{
      f"lambda_{factor:g}": _multiplied(factor)
      for factor in (0.0, 1.0, 2.0, 10.0, 20.0)
    },
    "baseline": {},
    "optimal_linear": {
      "objective.target": "online_stopped",
      "objective.optimal_predictor": True,
      "model.predictor.layers": 0,
    },
  },
  "22": {
    f"mu_{projector:g}_lambda_{predictor:g}": _multiplied(predictor, projector)
    for projector in _FACTORS
    for predictor in _FACTORS
  },
}
# Figure 3 shows parts of Tables 16 and 17.
ROWS["3a"] = {
  name: changes
  for name, changes in ROWS["16"].items()
  if not name.endswith("_64")
}
ROWS["3b"] = {
  name: changes
  for name, changes in ROWS["17"].items()
  if name.partition("_")[2]
  in ("baseline", "no_grayscale", "no_colour", "crop_blur", "crop")
}
