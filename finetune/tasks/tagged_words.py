"""Rows of words with a tag each: what their tags are called, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError, did_you_mean
from finetune.evaluation.metrics.span_f1 import OUTSIDE
from finetune.tasks.tag_schemes import PREFIXED, Scheme, Seen, iob2

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN = 10  # known labels that a message names


def check_columns(rows: Dataset, words: str, tags: str, split: str) -> None:
    """Raise UserError where tags are missing, or are not as many as the words."""
    if tags not in rows.column_names:
        raise UserError(f"data.{split}: the column {tags!r} (task.tags) is missing.")
    for row_id, ours, theirs in zip(rows["row_id"], rows[words], rows[tags], strict=True):
        check_length(row_id, ours, theirs, tags)


def check_length(row_id: str, words: Sequence[str], tags: Any, column: str) -> None:
    """Raise UserError where a row has not one tag a word."""
    if not isinstance(tags, list):
        raise UserError(f"{row_id}: column {column!r} (task.tags) is {tags!r}; it must hold a list, a tag a word.")
    if len(tags) != len(words):
        raise UserError(f"{row_id}: {len(words)} words and {len(tags)} tags in {column!r}; every word needs one tag.")


def named_tags(row_id: str, tags: Sequence[Any], labels: Sequence[str] | None) -> list[str]:
    """Return tags by name: numbers are places in `labels`. UserError where there is no such name."""
    if not tags or isinstance(tags[0], str):
        return list(tags)
    if labels is None:
        raise UserError(
            f"{row_id}: tags are numbers ({tags[0]}, …) and nothing says what they stand for; "
            "name them in their order: task.labels: [O, B-…, I-…]."
        )
    wrong = [tag for tag in tags if not 0 <= tag < len(labels)]
    if wrong:
        raise UserError(
            f"{row_id}: the tag {wrong[0]} has no name: task.labels has {len(labels)} (0 to {len(labels) - 1})."
        )
    return [labels[tag] for tag in tags]


def all_tags(rows: Dataset, column: str, labels: Sequence[str] | None) -> Iterator[tuple[str, list[str]]]:
    """Yield (row id, its tags by name) of all rows."""
    for row_id, tags in zip(rows["row_id"], rows[column], strict=True):
        yield row_id, named_tags(row_id, tags, labels)


def check_prefixes(rows: Iterable[tuple[str, Sequence[str]]], scheme: Scheme | None) -> None:
    """Raise UserError for the first tag of a scheme with prefixes that is neither O nor has one."""
    if scheme in ("IO", "plain"):
        return
    for row_id, tags in rows:
        for place, tag in enumerate(tags):
            if tag != OUTSIDE and not PREFIXED.fullmatch(tag):
                raise UserError(
                    f'{row_id}, word {place + 1}: the tag "{tag}" is neither O nor has a prefix, as in B-{tag or "X"}, '
                    f"where {'task.scheme is ' + scheme if scheme else 'other tags have one'}."
                )


def check_scheme(seen: Seen, scheme: Scheme | None, split: str) -> None:
    """Raise UserError where tags are not written in the scheme that the recipe names."""
    if scheme in (None, "IO", "plain"):
        return
    broken, first = seen.broken(scheme)
    if seen.endings not in (None, scheme):
        raise UserError(f"data.{split}: tags have the prefixes of {seen.endings}, and task.scheme is {scheme}.")
    if broken:
        raise UserError(
            f"{first}: {broken:,} spans of {split} are not written in task.scheme {scheme}; mend them, or leave "
            "task.scheme out to have them taken as conlleval does."
        )


def rewriting(seen: Seen, spans: int) -> str:
    """Say what becomes of tags that are not in IOB2; "" where they are.

    Args:
        seen: of the tags.
        spans: how many they name.
    """
    scheme = seen.scheme
    broken, first = seen.broken(scheme)
    said = [] if scheme == "IOB2" else [f"tags are {scheme}; its {spans:,} spans are rewritten in IOB2"]
    if broken:
        odd = f"{broken:,} of {spans:,} spans are not written as {scheme} has them"
        said.append(f"{odd} ({first} is the first); they are taken as conlleval does")
    return "; ".join(said)


def to_learn(
    row_id: str, tags: Sequence[Any], labels: Sequence[str], scheme: Scheme | None, spans: bool, column: str
) -> list[int]:
    """Return the label number of each word. UserError for a tag that the run does not know."""
    names = named_tags(row_id, tags, labels)
    if spans:
        check_prefixes([(row_id, names)], scheme)
        names = iob2(names, scheme)
    number = {label: place for place, label in enumerate(labels)}
    for place, name in enumerate(names):
        if name not in number:
            known = ", ".join(labels[:SHOWN]) + (", …" if len(labels) > SHOWN else "")
            raise UserError(
                f"{row_id}, word {place + 1}: column {column!r} is {name!r}, and no training row has that tag; "
                f"known tags: {known}.{did_you_mean(name, labels)}"
            )
    return [number[name] for name in names]


def counted(rows: Iterable[tuple[str, Sequence[str]]]) -> Counter[str]:
    """Return how often each tag occurs."""
    return Counter(tag for _, tags in rows for tag in tags)
