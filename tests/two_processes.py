"""Train several recipes one after the other in the processes that a launcher started.

accelerate launch --config_file accelerate_configs/cpu.yaml tests/two_processes.py RECIPE RECIPE …
"""

import gc
import sys

from finetune.endings import leave_group
from finetune.recipe import Recipe
from finetune.run import train

for path in sys.argv[1:]:
    train(Recipe.read(path))
    gc.freeze()  # what is imported stays: the next training need not walk it when it frees its memory
leave_group(0)
