"""From conversations to tokens, and which of them are learned."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.task import Encoded
from finetune.tasks.conversations import COLUMN, turns_of
from finetune.tasks.lengths import length_facts
from finetune.tasks.templates import end_of_turn, refuse_special, rendered, special_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset, Features
    from transformers import PreTrainedTokenizerBase

    from finetune.tasks.chat import Chat
    from finetune.tasks.conversations import Turn

IGNORED = -100
LISTS = ("input_ids", "labels", "position_ids")
PLAIN = {"bytes": "float64", "row": "int64", "row_id": "string", "length": "int64", "cut": "bool"}
COUNTED = ("gone", "conversations")  # int64, of an input: turns left out of its conversations, and how many it holds
HELD = {"prompt_length": "int64", "question": "string", "reply": "string"}  # of inputs that are answered


@dataclass(frozen=True)
class Read:
    """A conversation as tokens."""

    ids: list[int]
    learned: list[bool]  # of each token
    prompt: int  # tokens before the last reply, its opening included
    size: int  # UTF-8 bytes of what is learned
    turns: list[Turn]


class Conversations:
    """Turns rows of conversations into inputs of at most `block_size` (token, next token) pairs.

    What a model is asked and what it learns to answer are cut into tokens apart, so that a prompt has in training the
    tokens that it has when the model is used.
    """

    def __init__(self, task: Chat, processor: PreTrainedTokenizerBase, on_long: str, held: bool) -> None:
        if on_long == "window":
            raise UserError("data.on_long: window would cut conversations apart; use truncate, drop or error.")
        self.task, self.processor, self.on_long, self.held = task, processor, on_long, held
        self.end = end_of_turn(processor)
        self.special = special_tokens(processor)

    def encode(self, rows: Dataset) -> Encoded:
        """Return the inputs; those to train on are packed where the task packs.

        Raises:
            UserError: a conversation is too long under on_long "error", the template does not take it, or nothing of it
                would be learned.
        """
        pack = self.task.pack and not self.held
        given = {"batched": True, "with_indices": True, "remove_columns": rows.column_names}
        work = self._packed if pack else self._one_by_one
        if not hasattr(rows, "num_rows"):
            return Encoded(rows.map(work, **given).remove_columns(["cut", *COUNTED]), {"streamed": True})
        inputs = rows.map(work, **given, features=_features(self.held), load_from_cache_file=False, desc="tokens")
        if not inputs.num_rows:
            raise UserError(
                f"data.on_long: all {rows.num_rows} conversations are longer than task.block_size "
                f"{self.task.block_size}."
            )
        facts = length_facts(rows.num_rows, inputs, self.task.block_size) | self._lost(rows.num_rows, inputs)
        if pack:  # a block is its own unit: it may hold several conversations
            inputs = inputs.remove_columns("row").add_column("row", list(range(len(inputs))))
            facts |= {"documents": rows.num_rows}
        return Encoded(inputs.remove_columns(["cut", *COUNTED]), facts | {"learned": _count(inputs)})

    def _lost(self, rows: int, inputs: Dataset) -> dict[str, Any]:
        """Return what conversations lost for their length, and sentences that say so."""
        gone, kept = (sum(inputs[name][:]) for name in COUNTED)
        said, dropped = list[str](), rows - kept
        if gone:
            said.append(
                f"{gone:,} of the oldest turns left out for task.block_size {self.task.block_size}; "
                "system messages, last questions and replies are whole"
            )
        if dropped and self.on_long == "truncate":
            said.append(
                f"{dropped:,} of {rows:,} conversations left out: the last question and its reply alone are longer "
                f"than task.block_size {self.task.block_size}"
            )
        return {"dropped": dropped, "turns_left_out": gone, **({"said": said} if said else {})}

    def _one_by_one(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        return _table([made for made, _ in self._made(rows, numbers)], self.held)

    def _packed(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Lay conversations one after the other until the next does not fit; none is cut for a block's sake."""
        blocks: list[list[dict[str, Any]]] = [[]]
        used = 0
        for made, _ in self._made(rows, numbers):
            if used + made["length"] > self.task.block_size and blocks[-1]:
                blocks.append([])
                used = 0
            blocks[-1].append(made)
            used += made["length"]
        return _table([_block(parts) for parts in blocks if parts], self.held)

    def _made(self, rows: dict[str, list[Any]], numbers: list[int]) -> Iterator[tuple[dict[str, Any], Read]]:
        most = self.task.block_size
        for text, number, row_id in zip(rows[COLUMN], numbers, rows["row_id"], strict=True):
            turns = turns_of(text)
            read, whole = self.read(turns, row_id), len(turns)
            pairs = len(read.ids) - 1
            if pairs > most and self.on_long == "error":
                raise UserError(
                    f"{row_id}: {pairs} tokens, and task.block_size is {most}. "
                    "Raise it, or set data.on_long to truncate or drop."
                )
            if not any(read.learned) and not self.held:
                raise UserError(f"{row_id}: has no assistant's turn, so nothing of it would be learned.")
            if pairs > most:
                shorter = self._shortened(turns, row_id) if self.on_long == "truncate" else None
                if shorter is None:
                    continue
                read = shorter
            ids, learned = read.ids, read.learned
            made = {
                "input_ids": ids[:-1],
                "labels": [one if kept else IGNORED for one, kept in zip(ids[1:], learned[1:], strict=True)],
                "position_ids": list(range(len(ids) - 1)),
                "bytes": read.size * sum(learned[1:]) / max(sum(learned), 1),
                "row": number,
                "row_id": row_id,
                "length": len(ids) - 1,
                "cut": len(read.turns) < whole,
                "gone": whole - len(read.turns),
                "conversations": 1,
            }
            if self.held:
                last = read.turns[-1]
                made["prompt_length"] = min(read.prompt, len(ids) - 1)
                made["question"] = next(each["content"] for each in reversed(read.turns) if each["role"] == "user")
                made["reply"] = last["content"].strip() if last["role"] == "assistant" else None
            yield made, read

    def _shortened(self, turns: list[Turn], row_id: str) -> Read | None:
        """Return a conversation with as few of its oldest turns left out as makes it fit; None where none can be.

        A question goes with its reply, a system's message stays, and so do the last question and what answers it.
        """
        head = [turn for turn in turns[:1] if turn["role"] == "system"]
        rest = turns[len(head) :]
        starts = range(2, len(rest) - 1 if rest[-1]["role"] == "assistant" else len(rest), 2)

        def left(start: int) -> Read:
            return self.read([*head, *rest[start:]], row_id)

        place = bisect_left(starts, True, key=lambda start: len(left(start).ids) - 1 <= self.task.block_size)
        return left(starts[place]) if place < len(starts) else None

    def read(self, turns: list[Turn], row_id: str) -> Read:
        """Return a conversation as tokens, cut where a reply begins and where it ends."""
        refuse_special(turns, self.special, row_id)
        pieces = self._pieces(turns, row_id)
        whole, count = self.task.train_on == "all", sum(learned for _, learned in pieces)
        ids: list[int] = []
        flags: list[bool] = []
        prompt = size = replies = 0
        encoded = self.processor([piece for piece, _ in pieces], add_special_tokens=False, verbose=False)["input_ids"]
        for (piece, is_reply), part in zip(pieces, encoded, strict=True):
            replies += is_reply
            wanted = is_reply and (self.task.train_on != "last" or replies == count)
            ends = len(part) - part[::-1].index(self.end) if is_reply and self.end in part else 0
            if is_reply and not ends:
                raise UserError(f"{row_id}: the chat template ends a reply without its end of turn; set task.template.")
            prompt = len(ids) if is_reply else len(ids) + len(part) if not replies else prompt
            ids += part
            flags += [whole or (wanted and place < ends) for place in range(len(part))]
            size += len(piece.encode()) if whole or wanted else 0
        if turns[-1]["role"] != "assistant":  # an input has a token less than the text: all of a prompt must be in it
            prompt = len(ids)
            ids, flags = [*ids, self.end], [*flags, False]
        return Read(ids, flags, prompt, size, turns)

    def _pieces(self, turns: list[Turn], row_id: str) -> list[tuple[str, bool]]:
        """Return the text in pieces, and of each whether it is a reply."""
        asks = turns[-1]["role"] != "assistant"
        whole, at = rendered(self.processor, turns, asks, row_id), 0
        pieces: list[tuple[str, bool]] = []
        for number, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            asked = rendered(self.processor, turns[:number], True, row_id)
            told = rendered(self.processor, turns[: number + 1], False, row_id)
            if not (whole.startswith(told) and told.startswith(asked)):
                raise UserError(
                    f"{row_id}: the chat template writes turn {number + 1} otherwise where it is asked for, or where "
                    "others follow, so what is learned would not be what is used. Set task.template, or give single "
                    "turns."
                )
            pieces += [(whole[at : len(asked)], False), (whole[len(asked) : len(told)], True)]
            at = len(told)
        return [piece for piece in [*pieces, (whole[at:], False)] if piece[0]]


def _block(parts: list[dict[str, Any]]) -> dict[str, Any]:
    names = [each["row_id"] for each in parts]
    joined = {name: [one for each in parts for one in each[name]] for name in LISTS}
    shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} conversations)"
    sums = {name: sum(each[name] for each in parts) for name in ("bytes", "length", *COUNTED)}
    return {**joined, **sums, "row": parts[0]["row"], "row_id": shown, "cut": any(each["cut"] for each in parts)}


def _table(made: list[dict[str, Any]], held: bool) -> dict[str, list[Any]]:
    return {name: [each[name] for each in made] for name in (*LISTS, *PLAIN, *COUNTED, *(HELD if held else ()))}


def _count(inputs: Dataset) -> int:
    """Return how many tokens are learned."""
    from pyarrow import compute

    labels = compute.list_flatten(inputs.data.column("labels"))
    return int(compute.sum(compute.not_equal(labels, IGNORED)).as_py() or 0)


def _features(held: bool) -> Features:
    from datasets import Features, List, Value

    plain = {**PLAIN, **dict.fromkeys(COUNTED, "int64"), **(HELD if held else {})}
    return Features(
        {name: List(Value("int32")) for name in LISTS} | {name: Value(kind) for name, kind in plain.items()}
    )
