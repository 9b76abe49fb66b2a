"""The paper's ablations: what it found for each row, in percent.

Grill et al. 2020, arXiv v3. Settings of the rows are in
configs/ablation_rows.py, by the same names. All numbers are those of linear
evaluation on ImageNet after 300 epochs, means over three seeds.
"""

import dataclasses
from collections.abc import Mapping, Sequence

# The paper prints half of the range of the seeds where it is more (§5).
UNPRINTED_SPREAD = 0.25


@dataclasses.dataclass(frozen=True)
class Number:
  """A mean over seeds.

  Attributes:
    mean: in percent.
    spread: half of the range of the seeds.
    text: as the paper prints it.
  """

  mean: float
  spread: float
  text: str

  @classmethod
  def parse(cls, text: str) -> "Number":
    """Reads "72.5", or "18.8 ± 0.7"."""
    mean, _, spread = text.partition(" ± ")
    return cls(float(mean), float(spread or UNPRINTED_SPREAD), text)


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of an ablation.

  Attributes:
    label: what it is, for people.
    top1: the paper's number; None if it has none.
    top5: the same.
    remark: what else the paper says of it, or where else the number stands.
    trained: False if the network is measured before its first update.
  """

  label: str
  top1: Number | None
  top5: Number | None = None
  remark: str = ""
  trained: bool = True


@dataclasses.dataclass(frozen=True)
class Ablation:
  """A table of ablations.

  Attributes:
    title: what it shows.
    place: where it stands.
    rows: name in configs/ablation_rows.py -> row.
    remark: what is to be known of all rows; "" for nothing.
  """

  title: str
  place: str
  rows: Mapping[str, Row]
  remark: str = ""


def _row(
  label: str, numbers: str, remark: str = "", *, trained: bool = True
) -> Row:
  """A row with its numbers as printed, such as "34.8 ± 3.0 / 60.8 ± 3.2"."""
  top1, *top5 = map(Number.parse, numbers.split(" / "))
  return Row(label, top1, top5[0] if top5 else None, remark, trained)


def _both(rows: Mapping[str, tuple[str, str, str]]) -> dict[str, Row]:
  """Rows with a column of BYOL and one of SimCLR.

  Args:
    rows: name -> label, numbers of BYOL, numbers of SimCLR.
  """
  return {
    f"{method.lower()}_{name}": _row(f"{method}, {label}", numbers[column])
    for column, method in enumerate(("BYOL", "SimCLR"))
    for name, (label, *numbers) in rows.items()
  }


_SIMCLR_COLUMN = (
  "SimCLR is the authors' reproduction of it on BYOL's views, which was not "
  "published; that its last layer is normalised is inferred."
)
_TWO_VALUES = "Tables 5a, 19 and 22 print 0.3, 5.5 and 3.2 for these settings."

_TABLE_5A = Ablation(
  "Target networks",
  "Table 5a, §5",
  {
    "initialisation": _row(
      "none: random weights", "1.4", "§3, in the text.", trained=False
    ),
    "1": _row("constant random network, τ = 1", "18.8 ± 0.7"),
    "0.999": _row("moving average, τ = 0.999", "69.8"),
    "0.99": _row("moving average, τ = 0.99 (BYOL)", "72.5"),
    "0.9": _row("moving average, τ = 0.9", "68.4"),
    "stop_gradient": _row(
      "stop-gradient of the online network, τ = 0", "0.3", _TWO_VALUES
    ),
  },
)

_TABLE_5B = Ablation(
  "Between BYOL and SimCLR",
  "Table 5b, §5",
  {
    "predictor_target_0": _row("predictor, target, β = 0 (BYOL)", "72.5"),
    "predictor_target_1": _row("predictor, target, β = 1", "70.9"),
    "target_1": _row("target, β = 1", "70.7"),
    "online_1": _row("β = 1 (SimCLR)", "69.4", "69.2 in App. F.5."),
    "predictor_online_1": _row("predictor, β = 1", "69.1", "69.0 in Table 19."),
    "predictor_online_0": _row("predictor, β = 0", "0.3"),
    "target_0": _row("target, β = 0 (as Mean Teacher)", "0.2"),
    "online_0": _row("β = 0", "0.1"),
  },
)

_TABLE_14 = Ablation(
  "Depth of projector and predictor, and size of the projection",
  "Table 14, App. F.1",
  {
    "projector_1_predictor_1": _row("depths 1 and 1", "61.9 / 86.0"),
    "projector_1_predictor_2": _row("depths 1 and 2", "65.0 / 86.8"),
    "projector_1_predictor_3": _row("depths 1 and 3", "65.7 / 86.8"),
    "projector_2_predictor_1": _row("depths 2 and 1", "71.5 / 90.7"),
    "projector_2_predictor_2": _row("depths 2 and 2 (BYOL)", "72.5 / 90.8"),
    "projector_2_predictor_3": _row("depths 2 and 3", "71.4 / 90.4"),
    "projector_3_predictor_1": _row("depths 3 and 1", "71.4 / 90.4"),
    "projector_3_predictor_2": _row("depths 3 and 2", "72.1 / 90.5"),
    "projector_3_predictor_3": _row("depths 3 and 3", "72.1 / 90.5"),
    "output_16": _row("size 16", "69.9 ± 0.3 / 89.9"),
    "output_32": _row("size 32", "71.3 / 90.6"),
    "output_64": _row("size 64", "72.2 / 90.9"),
    "output_128": _row("size 128", "72.5 / 91.0"),
    "output_256": _row("size 256 (BYOL)", "72.5 / 90.8"),
    "output_512": _row("size 512", "72.6 / 91.0"),
  },
)

_TABLE_15 = Ablation(
  "Learning rate and weight decay",
  "Table 15, App. F.1",
  {
    "learning_rate_0.01": _row("learning rate 0.01", "34.8 ± 3.0 / 60.8 ± 3.2"),
    "learning_rate_0.1": _row("learning rate 0.1", "65.0 / 87.0"),
    "learning_rate_0.2": _row("learning rate 0.2", "71.7 / 90.6"),
    "learning_rate_0.3": _row("learning rate 0.3 (BYOL)", "72.5 / 90.8"),
    "learning_rate_0.4": _row("learning rate 0.4", "72.3 / 90.6"),
    "learning_rate_0.5": _row("learning rate 0.5", "71.5 / 90.1"),
    "learning_rate_1": _row("learning rate 1", "69.4 / 89.2"),
    "weight_decay_0": Row(
      "weight decay 0",
      None,
      remark="No number: it may be unstable (caption), or diverges (§5).",
    ),
    "weight_decay_1e-7": _row("weight decay 1e-7", "72.1 / 90.4"),
    "weight_decay_5e-7": _row("weight decay 5e-7", "72.6 / 91.0"),
    "weight_decay_1e-6": _row("weight decay 1e-6 (BYOL)", "72.5 / 90.8"),
    "weight_decay_5e-6": _row("weight decay 5e-6", "71.0 ± 0.3 / 90.0"),
    "weight_decay_1e-5": _row("weight decay 1e-5", "69.6 ± 0.4 / 89.3"),
  },
)

_TABLE_16 = Ablation(
  "Batch size",
  "Table 16, App. F.2",
  _both(
    {
      "4096": ("4096", "72.5 / 90.8", "67.9 / 88.5"),
      "2048": ("2048", "72.4 / 90.7", "67.8 / 88.5"),
      "1024": ("1024", "72.2 / 90.7", "67.4 / 88.1"),
      "512": ("512", "72.2 / 90.8", "66.5 / 87.6"),
      "256": ("256", "71.8 / 90.7", "64.3 ± 2.1 / 86.3 ± 1.0"),
      "128": ("128", "69.6 ± 0.5 / 89.6", "63.6 / 85.9"),
      "64": ("64", "59.7 ± 1.5 / 83.2 ± 1.2", "59.2 ± 2.9 / 83.0 ± 1.9"),
    }
  ),
  "A row cuts each batch of 4096 into parts of the size that it names; at "
  f"other scales, a smaller batch into as many parts. {_SIMCLR_COLUMN}",
)

_TABLE_17 = Ablation(
  "Augmentations",
  "Table 17, App. F.3",
  _both(
    {
      "baseline": ("baseline", "72.5 / 90.8", "67.9 / 88.5"),
      "no_flip": ("no flip", "71.9 / 90.6", "67.3 / 88.2"),
      "no_blur": ("no blur", "71.2 / 90.3", "65.2 / 86.6"),
      "no_colour": (
        "no jitter, no grayscale",
        "63.4 ± 0.7 / 85.3 ± 0.5",
        "45.7 / 70.6",
      ),
      "no_jitter": ("no jitter", "71.8 / 90.7", "63.7 / 85.9"),
      "no_grayscale": ("no grayscale", "70.3 / 89.8", "61.9 / 84.1"),
      "no_blur_in_view2": ("no blur in view 2", "72.4 / 90.8", "67.5 / 88.4"),
      "no_solarize_in_view2": (
        "no solarization in view 2",
        "72.3 / 90.8",
        "67.7 / 88.2",
      ),
      "no_blur_no_solarize_in_view2": (
        "no blur, no solarization in view 2",
        "72.2 / 90.8",
        "67.4 / 88.1",
      ),
      "symmetric": ("both views alike", "72.5 / 90.8", "68.1 / 88.4"),
      "crop": ("crop only", "59.4 ± 0.3 / 82.4", "40.3 ± 0.3 / 64.8 ± 0.4"),
      "crop_flip": (
        "crop and flip only",
        "60.1 ± 0.3 / 83.0 ± 0.3",
        "40.2 / 64.8",
      ),
      "crop_colour": ("crop and colour only", "70.7 / 90.0", "64.2 / 86.2"),
      "crop_blur": ("crop and blur only", "61.1 ± 0.3 / 83.9", "41.7 / 66.4"),
    }
  ),
  _SIMCLR_COLUMN,
)

# α -> numbers of β = 0.1, 0.5 and 1.
_OF_TABLE_18 = {
  "0.01": ("72.2 / 90.7", "70.9 / 90.2", "53.9 ± 0.5 / 77.5 ± 0.5"),
  "0.1": ("72.4 / 90.9", "72.0 / 90.8", "70.9 / 90.3"),
  "0.3": ("72.7 / 91.0", "72.7 / 91.2", "72.7 / 91.1"),
  "1": ("72.6 / 90.9", "72.7 / 91.1", "72.7 / 91.1"),
  "3": ("72.5 / 90.9", "72.6 / 91.1", "72.6 / 91.0"),
  "10": ("72.5 / 90.9", "72.5 / 91.0", "72.6 / 91.1"),
}
_TABLE_18 = Ablation(
  "Temperature and weight of the negatives",
  "Table 18, App. F.4",
  {
    "beta_0": _row("β = 0 (BYOL)", "72.5 / 90.8"),
    **{
      f"alpha_{alpha}_beta_{beta}": _row(f"α = {alpha}, β = {beta}", text)
      for alpha, numbers in _OF_TABLE_18.items()
      for beta, text in zip(("0.1", "0.5", "1"), numbers, strict=True)
    },
  },
)

_TABLE_19 = Ablation(
  "Predictor, target branch and negatives",
  "Table 19, App. F.4",
  {
    "predictor_target_0": _row("predictor, target, β = 0 (BYOL)", "72.5"),
    "predictor_target_1": _row("predictor, target, β = 1", "70.9"),
    "target_1": _row("target, β = 1", "70.7"),
    "predictor_stopped_1": _row(
      "predictor, stop-gradient, β = 1", "70.2", "Printed again, as 70.1."
    ),
    "online_1": _row("β = 1 (SimCLR)", "69.4"),
    "stopped_1": _row("stop-gradient, β = 1", "69.2"),
    "predictor_online_1": _row("predictor, β = 1", "69.0", "69.1 in Table 5b."),
    "predictor_stopped_0": _row(
      "predictor, stop-gradient, β = 0", "5.5", _TWO_VALUES
    ),
    "predictor_online_0": _row("predictor, β = 0", "0.3"),
    "target_0": _row("target, β = 0 (as Mean Teacher)", "0.2"),
    "stopped_0": _row("stop-gradient, β = 0", "0.1"),
    "online_0": _row("β = 0", "0.1"),
  },
)

_TABLE_20 = Ablation(
  "Normalisation of prediction and target",
  "Table 20, App. F.6",
  {
    "l2": _row("l2 (BYOL)", "72.5 / 90.8"),
    "layer_norm": _row("layer norm", "72.5 ± 0.4 / 90.1"),
    "none": _row("none", "67.4 / 87.1"),
    "batch_norm": _row("batch norm", "65.3 / 85.3"),
  },
)

_TABLE_21 = Ablation(
  "No target network: learning rate of the predictor",
  "Table 21, App. I",
  {
    "lambda_0": _row("predictor × 0", "0.01"),
    "lambda_1": _row("predictor × 1", "5.5", _TWO_VALUES),
    "lambda_2": _row("predictor × 2", "62.8 ± 1.5"),
    "lambda_10": _row("predictor × 10", "66.6", "66.5 in §5."),
    "lambda_20": _row("predictor × 20", "66.3 ± 0.3"),
    "baseline": _row("with target network (BYOL)", "72.5"),
    "optimal_linear": _row(
      "optimal linear predictor", "52.5", "§5, in the text."
    ),
  },
)

# Multiplier μ of the projector -> numbers of each multiplier of the predictor.
_LAMBDAS = ("1", "1.5", "2", "5", "10")
_OF_TABLE_22 = {
  "1": ("3.2 ± 2.9", "25.7 ± 6.6", "60.8 ± 2.9", "66.7 ± 0.4", "66.9"),
  "1.5": ("1.4 ± 2.0", "9.2 ± 7.0", "55.2 ± 5.8", "61.5 ± 0.6", "66.0 ± 0.3"),
  "2": ("2.0 ± 2.8", "5.3 ± 1.9", "15.8 ± 13.4", "60.9 ± 0.8", "66.3"),
  "5": ("1.5 ± 0.9", "2.5 ± 1.5", "2.5 ± 1.4", "20.5 ± 2.0", "60.5 ± 0.6"),
  "10": ("0.1", "2.1 ± 0.3", "1.9 ± 0.8", "2.8 ± 0.4", "8.3 ± 6.8"),
}
_TABLE_22 = Ablation(
  "No target network: learning rates of projector and predictor",
  "Table 22, App. I",
  {
    f"mu_{mu}_lambda_{factor}": _row(
      f"projector × {mu}, predictor × {factor}", text
    )
    for mu, numbers in _OF_TABLE_22.items()
    for factor, text in zip(_LAMBDAS, numbers, strict=True)
  },
)


_IN_FIGURE_3A = ("4096", "2048", "1024", "512", "256", "128")
_IN_FIGURE_3B = ("baseline", "no_grayscale", "no_colour", "crop_blur", "crop")


def _figure(of: Ablation, place: str, endings: Sequence[str]) -> Ablation:
  """The rows of a table that a figure shows, of BYOL and of SimCLR."""
  names = [f"{method}_{x}" for method in ("byol", "simclr") for x in endings]
  rows = {name: of.rows[name] for name in names}
  return dataclasses.replace(of, place=f"{place}; {of.place}", rows=rows)


# By the number in the paper.
ABLATIONS = {
  "3a": _figure(_TABLE_16, "Figure 3a, §5", _IN_FIGURE_3A),
  "3b": _figure(_TABLE_17, "Figure 3b, §5", _IN_FIGURE_3B),
  "5a": _TABLE_5A,
  "5b": _TABLE_5B,
  "14": _TABLE_14,
  "15": _TABLE_15,
  "16": _TABLE_16,
  "17": _TABLE_17,
  "18": _TABLE_18,
  "19": _TABLE_19,
  "20": _TABLE_20,
  "21": _TABLE_21,
  "22": _TABLE_22,
}
