"""A classifier whose step takes as long as a file lies there: for tests that signal a run in the midst of a step."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.tasks.text_classification import TextClassification


@dataclass(frozen=True)
class HeldClassification(TextClassification):
    """On rank 0, once there is a second checkpoint, a step waits while the file HELD_BY is there, and says so."""

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        hold = Path(os.environ["HELD_BY"])
        known = [hold.parent / run / "checkpoints" / "checkpoint-2" for run in ("run", ".run-audit.partial/training")]
        if os.environ.get("RANK", "0") == "0" and any(each.exists() for each in known):
            while hold.exists():
                hold.with_name("held").touch()
                time.sleep(0.02)
        return super().loss(model, batch)
