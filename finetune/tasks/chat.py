"""Instruction tuning and dialogue: a model that answers, and stops when it has."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.objectives.consistency import apart
from finetune.task import Columns, Encoded, Scores, Usage
from finetune.tasks.causal_lm import CausalLM, _collate, _token_losses
from finetune.tasks.conversations import COLUMN, NAMES, PARTS, layout_of, turns_of
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch

IGNORED = -100


@dataclass(frozen=True)
class Chat(Taught):
    """The assistant's turns of conversations: of prompt and completion, Alpaca, ShareGPT or messages.

    Which of them a row is, is seen from its columns. The chat template is the tokenizer's own, or a simple one by its
    name, and is saved with the run. Losses are nats a learned token, the token that ends a turn among them.
    """

    template: Literal["plain", "alpaca", "chatml"] | None = None  # None: the tokenizer's own
    train_on: Literal["assistant", "last", "all"] = "assistant"  # every reply, the last one, or every token
    block_size: int = 256  # tokens an input
    pack: bool = False  # several conversations an input, none seeing another
    max_new_tokens: int = 64  # of a reply that is written, at most
    vocab_size: int = 8000  # of the byte-level BPE trained on the data where no tokenizer is given; 257 = bytes alone
    prompts: tuple[str, ...] = ()  # answered for the report, before and after
    layout: Literal["messages", "conversations", "prompt", "instruction"] | None = None  # read off the training rows

    kind: ClassVar[str] = "chat"
    best_score: ClassVar[str] = "nll"
    best_is_greatest: ClassVar[bool] = False
    asks_untuned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("block_size", "max_new_tokens"):
            if getattr(self, name) < 2:
                raise UserError(f"task.{name}: {getattr(self, name)} is too few; give 2 tokens or more.")

    def columns(self) -> Columns:
        return Columns(texts=(COLUMN,), parts=PARTS)

    def resolve(self, splits: dict[str, Dataset]) -> Chat:
        for rows in splits.values():
            for text, row_id in zip(rows[COLUMN], rows["row_id"], strict=True):
                if turns_of(text)[-1]["role"] != "assistant":
                    raise UserError(
                        f"{row_id}: ends without an assistant's turn, so nothing answers the last question."
                    )
        if "train" not in splits:
            return self
        found = Counter(map(layout_of, splits["train"][COLUMN]))
        layout: Any = found.most_common(1)[0][0]
        if self.layout is not None and set(found) != {self.layout}:
            other = next(name for name in found if name != self.layout)
            raise UserError(f"task.layout: {self.layout}, and training rows are of {NAMES[other]}; leave it out.")
        return replace(self, layout=layout if len(found) == 1 else None)

    def described(self) -> str:
        kind = "several layouts" if self.layout is None else f"the layout {NAMES[self.layout]}"
        learned = {"assistant": "the assistant's turns are", "last": "the last reply is", "all": "every token is"}
        template = "the tokenizer's own template" if self.template is None else f"the template {self.template}"
        return f"task: conversations in {kind}, written by {template}; {learned[self.train_on]} learned."

    def usage(self, family: str | None = None) -> Usage:
        return Usage(
            does="Answers in a conversation.",
            auto_class="AutoModelForCausalLM",
            processor="tokenizer",
            pipeline="text-generation",
            code='turns = [{"role": "user", "content": "Hello!"}]\n'
            "asked = tokenizer.apply_chat_template(\n"
            '    turns, add_generation_prompt=True, return_tensors="pt", return_dict=True\n'
            ")\n"
            f"told = model.generate(**asked, max_new_tokens={self.max_new_tokens})[0, asked.input_ids.shape[1] :]\n"
            "print(tokenizer.decode(told, skip_special_tokens=True))",
        )

    @property
    def _reader(self) -> CausalLM:
        """The language model that this one is."""
        return CausalLM(text=COLUMN, block_size=self.block_size, pack=True, vocab_size=self.vocab_size)

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> PreTrainedTokenizerBase:
        from finetune.tasks.templates import end_of_turn, settle_template

        def said() -> Any:
            return (turn["content"] for text in texts() for turn in turns_of(text))

        processor = self._reader.load_processor(model, said)
        settle_template(processor, self.template)
        end_of_turn(processor)
        return processor

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        from finetune.tasks.chat_inputs import Conversations

        return Conversations(self, processor, on_long, held=False).encode(rows)

    def encode_held(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        from finetune.tasks.chat_inputs import Conversations

        return Conversations(self, processor, on_long, held=True).encode(rows)

    def shown_input(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        from finetune.tasks.chat_preview import marked

        return marked(example, processor)

    def shown_target(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        learned = sum(label != IGNORED for label in example["labels"])
        return f"{learned} of {example['length']} tokens are learned (marked); the others are read alone"

    def collator(self, processor: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Batch]:
        return partial(_collate_held, pad_id=processor.pad_token_id)

    def load_model(self, model: ModelOptions, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
        from finetune.loading import context_length
        from finetune.tasks.templates import end_of_turn

        network, new = self._reader.load_model(model, processor)
        limit = context_length(network.config)
        if limit and self.block_size + self.max_new_tokens > limit:
            raise UserError(
                f"task.block_size {self.block_size} and task.max_new_tokens {self.max_new_tokens} are more than the "
                f"{limit} tokens that the model can read; lower one of them."
            )
        ends = dict.fromkeys((end_of_turn(processor), processor.eos_token_id))
        settings: Any = network.generation_config  # saved with the model, which then stops elsewhere as here
        settings.eos_token_id = [one for one in ends if one is not None]
        return network, new

    def probe(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> None:
        if self.pack:
            self._reader.probe(model, processor)

    def weight(self, batch: Batch) -> Tensor:
        return (batch["labels"] != IGNORED).sum()

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        outputs = self._reader._forward(model, batch)
        return _token_losses(outputs.logits, batch["labels"]).sum(), outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        return apart(one.logits, other.logits, batch["labels"], temperature=temperature)

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        return self._reader.logits(model, batch)

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        return self._reader.answer(model, batch)

    def write(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase, batch: Batch) -> dict[str, Tensor]:
        from finetune.tasks.chat_writing import replies
        from finetune.tasks.writing import as_bytes

        prompts = [ids[:size] for ids, size in zip(batch["input_ids"], batch["prompt_length"].tolist(), strict=True)]
        texts, stopped = replies(model, processor, prompts, self._writing)
        return {"written": as_bytes(texts), "stopped": stopped}

    @property
    def _writing(self) -> dict[str, Any]:
        from finetune.tasks.writing import PLAIN

        return {**PLAIN, "max_new_tokens": self.max_new_tokens}

    def reply(
        self,
        model: PreTrainedModel,
        processor: PreTrainedTokenizerBase,
        rows: Dataset,
        options: dict[str, Any],
        size: int,
    ) -> list[str]:
        from finetune.tasks.chat_writing import answered

        asked = [turns_of(text) for text in rows[COLUMN]]
        return answered(model, processor, asked, list(rows["row_id"]), {**self._writing, **options}, size)

    def sample(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> list[str]:
        from finetune.tasks.chat_writing import answered

        turns = [[{"role": "user", "content": prompt}] for prompt in self.prompts]
        told = answered(model, processor, turns, ["task.prompts"] * len(turns), self._writing, len(turns) or 1)
        return [f"{prompt}\n→ {text}" for prompt, text in zip(self.prompts, told, strict=True)]

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.evaluation.replies import reply_scores
        from finetune.evaluation.words import cut_for
        from finetune.tasks.writing import as_texts

        scores = self._reader.score(answers, inputs, resamples)
        if "written" not in answers:
            return scores
        texts = as_texts(answers["written"])
        meant = list(inputs["reply"][: len(texts)])
        return scores | reply_scores(texts, meant, answers["stopped"], cut_for(meant), resamples)

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from datasets import Dataset as Table

        from finetune.tasks.writing import as_texts

        table: dict[str, Any] = {"row_id": list(inputs["row_id"]), "source": list(inputs["question"])}
        if "written" in answers:  # of the first rows alone, where there are more than evaluate.generated
            left: list[None] = [None] * (len(inputs) - len(answers["written"]))
            table["generated"] = [*as_texts(answers["written"]), *left]
            table["stopped"] = [*answers["stopped"].astype(bool).tolist(), *left]
        if answers["tokens"].any():
            tokens = answers["tokens"].astype(int)
            table |= {"target": list(inputs["reply"]), "tokens": tokens, "nll": answers["nll"]}
            table["nll_per_token"] = answers["nll"] / tokens.clip(min=1)
        return Table.from_dict(table)

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: PreTrainedTokenizerBase,
        resamples: int,
    ) -> dict[str, Scores]:
        return self._reader.baselines(rows, inputs, answers, processor, resamples)

    def untuned(self, before: Answers, answers: Answers, inputs: Dataset, resamples: int) -> Scores:
        import numpy as np

        from finetune.evaluation.language import language_rival

        text_bytes = np.asarray(inputs.with_format("numpy")["bytes"][:])
        return language_rival(before["nll"], answers["nll"], answers["tokens"], text_bytes, resamples)


def _collate_held(inputs: list[dict[str, Any]], pad_id: int) -> Batch:
    """Return the batch of a language model, and where the prompts end in inputs that are answered."""
    import torch

    batch = _collate(inputs, pad_id)
    if "prompt_length" in inputs[0]:
        batch["prompt_length"] = torch.tensor([each["prompt_length"] for each in inputs])
    return batch
