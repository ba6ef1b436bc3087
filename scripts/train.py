"""Train a recipe.

accelerate launch --config_file accelerate_configs/ddp.yaml scripts/train.py recipes/sentiment-lora.yaml
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
