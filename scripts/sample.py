"""Draw texts or images from a run.

python scripts/sample.py runs/my --count 64 --grid grid.png
"""

import sys

from finetune.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
