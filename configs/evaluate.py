"""The config of `byol evaluate` before there was a choice of protocols.

It is configs/few_label.py, and takes the same argument.
"""

from configs.few_label import get_config as get_config
