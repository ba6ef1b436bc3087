"""Observe the steps of several recipes in the processes of one launch: FILE gets {recipe: steps}, and the world.

The weights lie beside each recipe, as RECIPE.safetensors.

accelerate launch --config_file accelerate_configs/cpu.yaml tests/launched_heads.py FILE RECIPE RECIPE …
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from finetune.endings import leave_group
from finetune.preparation import prepare
from finetune.recipe import Recipe
from finetune.selftest.observing import observe
from finetune.training import ranks

found, device = {}, torch.device("cpu")
for path in sys.argv[2:]:
    seen = observe(prepare(Recipe.read(path)))
    device = seen.trainer.args.device
    found[path] = seen.steps
    if ranks.rank() == 0:
        save_file(seen.weights, Path(path).with_suffix(".safetensors"))
world = int(ranks.summed(torch.ones(1), device)[0])
if ranks.rank() == 0:
    Path(sys.argv[1]).write_text(json.dumps({"world": world, "found": found}))
leave_group(0)
