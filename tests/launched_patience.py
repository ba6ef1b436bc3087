"""Train a recipe in two processes, of which the first then has more to do than a collective may last.

accelerate launch --config_file accelerate_configs/cpu.yaml tests/launched_patience.py RECIPE LIMIT SECONDS
"""

import sys
import time
from datetime import timedelta
from typing import Any

import torch

import finetune.run
from finetune.endings import leave_group
from finetune.recipe import Recipe

LIMIT, SECONDS = map(float, sys.argv[2:])
recording = finetune.run.record


def record(*given: Any) -> None:
    time.sleep(SECONDS)
    recording(*given)


torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=LIMIT))
finetune.run.record = record
finetune.run.train(Recipe.read(sys.argv[1]))
leave_group(0)
