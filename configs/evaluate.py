"""The old name of configs/few_label.py, which takes the same argument.

`byol evaluate` had only this config before there was a choice of protocols.
"""

from configs.few_label import get_config as get_config
