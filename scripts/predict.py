"""Answer every row of a file with a run.

accelerate launch --config_file accelerate_configs/ddp.yaml scripts/predict.py runs/my new.jsonl --output answers.jsonl
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
