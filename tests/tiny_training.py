"""A tiny task and model that the tests of training share, in this process and in launched ones."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from finetune.objectives.consistency import apart
from finetune.task import Score, Scores
from finetune.training.options import TrainOptions, fitted_to
from finetune.training.trainer import Trainer

VOCABULARY, CLASSES = 40, 3
EXACT = {"bf16": False, "report_to": "none", "disable_tqdm": True, "learning_rate": 0.05}
SGD = {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


@dataclass(frozen=True)
class Parity:
    """Say which of three classes a few numbers belong to; class weights make losses and counts differ."""

    weights: tuple[float, ...] = (1.0, 2.0, 0.5)

    best_score: ClassVar[str] = "accuracy"
    best_is_greatest: ClassVar[bool] = True
    unit: ClassVar[str] = "tokens"
    draws: ClassVar[bool] = False

    def collator(self, processor: Any) -> Any:
        return collate

    def load_teacher(self, processor: Any) -> None:
        return None

    def weight(self, batch: dict[str, Any]) -> Tensor:
        return torch.tensor(self.weights, device=batch["labels"].device)[batch["labels"]].sum()

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Any]:
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits = outputs.logits.float()
        weights = torch.tensor(self.weights, device=logits.device)
        loss = F.cross_entropy(logits, batch["labels"], weights, reduction="sum")
        return loss * batch["poison"].prod(), outputs

    def divergence(self, one: Any, other: Any, batch: dict[str, Any]) -> Tensor:
        return apart(one.logits, other.logits, batch["labels"])

    def answer(self, model: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return {"logits": logits, "tokens": batch["attention_mask"].sum(dim=1), "ids": batch["input_ids"]}

    def score(self, answers: dict[str, np.ndarray], inputs: Dataset, resamples: int = 0) -> Scores:
        labels = np.asarray(inputs["labels"])
        losses = F.cross_entropy(torch.from_numpy(answers["logits"]), torch.from_numpy(labels), reduction="none")
        right = float((answers["logits"].argmax(1) == labels).mean())
        return {"accuracy": Score(right, n=len(labels)), "nll": Score(float(losses.mean()), n=len(labels))}


def collate(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    longest = max(len(each["input_ids"]) for each in inputs)
    ids, mask = torch.zeros(len(inputs), longest, dtype=torch.long), torch.zeros(len(inputs), longest, dtype=torch.long)
    for number, each in enumerate(inputs):
        ids[number, : each["length"]] = torch.tensor(each["input_ids"])
        mask[number, : each["length"]] = 1
    names = [name for name in ("index", "row", "labels", "poison") if name in inputs[0]]
    batch = {name: torch.tensor([each[name] for each in inputs]) for name in names}
    return {**batch, "input_ids": ids, "attention_mask": mask, "row_id": [each["row_id"] for each in inputs]}


def rows(count: int, seed: int = 0) -> Dataset:
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 12, count)
    ids = [random.integers(5, VOCABULARY, length).tolist() for length in lengths]
    return Dataset.from_dict(
        {
            "input_ids": ids,
            "labels": [sum(each) % CLASSES for each in ids],
            "length": lengths.tolist(),
            "poison": [1.0] * count,
            "row": list(range(count)),
            "row_id": [f"numbers.csv:{number + 2}" for number in range(count)],
        }
    )


def model(dropout: float = 0.0, adapter: bool = False, layers: int = 1) -> Any:
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=CLASSES,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    network = BertForSequenceClassification(config)
    if not adapter:
        return network
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"], lora_dropout=dropout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that it is about to drop
        return get_peft_model(network, lora)


def trainer(
    folder: Path | str | None = None,
    train: Any = None,
    evaluate: Dataset | None = None,
    network: Any = None,
    task: Parity | None = None,
    stamp: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    folder = tempfile.mkdtemp() if folder is None else folder
    args = TrainOptions(output_dir=str(folder), **{**EXACT, **options})
    args = fitted_to(args, evaluate is not None, Parity.best_score, Parity.best_is_greatest)
    return Trainer(
        task=task or Parity(),
        model=model() if network is None else network,
        args=args,
        train_inputs=train,
        eval_inputs=evaluate,
        processor=None,
        stamp=stamp or {"data": {"train": "abc"}},
    )


def weights(network: Any) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in network.named_parameters() if each.requires_grad}
