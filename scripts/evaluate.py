"""Score a run again, or on other rows.

accelerate launch --config_file accelerate_configs/ddp.yaml scripts/evaluate.py runs/my --data.test other.csv
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
