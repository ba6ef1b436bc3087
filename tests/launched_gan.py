"""What the tests of adversarial training do in two processes, all in one launch: FOLDER gets files of each rank.

accelerate launch --config_file accelerate_configs/cpu.yaml tests/launched_gan.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tiny_gan import (
    ADAM,
    GAMES,
    NORMED,
    SGD,
    gradients_of,
    history,
    images,
    killed_after,
    optimisers,
    same,
    state,
    trainer,
)

from finetune.endings import leave_group
from finetune.errors import FinetuneError

FOLDER, RANK = Path(sys.argv[1]), os.environ["RANK"]
CUT = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 4}


def gradients(name: str, game: Any) -> None:
    run = trainer(game, **{**SGD, "learning_rate": 0.0}, **CUT, max_steps=1)
    found = gradients_of(run)
    run.train()
    flat = {f"{step}.{place}": each for step, held in enumerate(found) for place, each in enumerate(held)}
    save_file(flat, FOLDER / f"gradients-{name}-{RANK}.safetensors")


def steps(name: str, game: Any) -> dict[str, Any]:
    run = trainer(game, **SGD, **CUT, num_train_epochs=2)
    run.train()
    save_file(state(run), FOLDER / f"steps-{name}-{RANK}.safetensors")
    answers = run.answers(images(9, 1))
    return {
        "history": history(run),
        "rows": run.state.num_input_tokens_seen,
        "optimisers": repr(optimisers(run)),
        "logits": answers["logits"].tolist(),
        "generated": answers["generated"].tolist(),
    }


def beside_a_stand_in(batch: int) -> None:
    run = trainer(NORMED, train=images(batch), **SGD, per_device_train_batch_size=batch, num_train_epochs=6)
    run.train()  # process 1 never has a row of its own
    save_file(state(run), FOLDER / f"alone-{RANK}.safetensors")


def resumed() -> dict[str, bool]:
    def made(folder: str) -> Any:
        return trainer(
            NORMED, FOLDER / folder, train=images(75), evaluate=images(9, 1), **ADAM, **CUT, num_train_epochs=2,
            logging_steps=2, save_steps=2, save_strategy="steps", eval_strategy="epoch", load_best_model_at_end=False,
        )  # fmt: skip

    unbroken = made("unbroken")
    unbroken.train()
    killed_after(made("broken"), 4)  # an epoch has three updates
    again = made("broken")
    again.train(resume_from_checkpoint=True)
    save_file(state(again), FOLDER / f"resumed-{RANK}.safetensors")
    return {"same": same(again, unbroken), "logged": len(again.history) > 3}


def diverged() -> str:
    try:
        trainer(GAMES["hinge"], FOLDER / "diverged", **{**SGD, "learning_rate": 1e30}, **CUT).train()
    except FinetuneError as error:
        return f"{type(error).__name__}: {error}"
    return "trained"


def main() -> None:
    from accelerate import PartialState

    for name, game in GAMES.items():
        gradients(name, game)
    beside_a_stand_in(4)
    results: dict[str, Any] = {
        "steps": {name: steps(name, game) for name, game in {**GAMES, "normed": NORMED}.items()},
        "resumed": resumed(),
        "diverged": diverged(),
    }
    found = PartialState()
    results |= {"world": found.num_processes, "type": str(found.distributed_type)}
    (FOLDER / f"result-{RANK}.json").write_text(json.dumps(results))
    leave_group(0)


if __name__ == "__main__":
    main()
