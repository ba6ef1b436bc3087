"""What tells of a person, found by Presidio in the sentence that it stands in: names and places too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finetune.errors import UserError, did_you_mean

DEFAULTS: dict[str, Any] = {
    "model": "en_core_web_lg",  # of spaCy, installed, or a folder; it is never downloaded
    "language": "en",
    "entities": ["PERSON", "LOCATION"],  # what `scrub` does not find
    "threshold": 0.5,  # from 0 to 1: Presidio's own score, from which something is replaced
}
Found = tuple[int, int, str, float]  # start, end, kind, score


def scrubber(told: Any, option: str) -> Callable[[str], str]:
    """Return the function that replaces what Presidio finds by its kind, such as <PERSON>.

    The model is loaded when the first text comes.

    Args:
        told: some of DEFAULTS, or None.
        option: its name in the recipe.

    Raises:
        UserError: an option is not known, or the package or the model is not installed.
    """
    if told is not None and not isinstance(told, Mapping):
        raise UserError(f"{option}: {told!r} says nothing; give options: {', '.join(DEFAULTS)}.")
    for name in told or ():
        if name not in DEFAULTS:
            raise UserError(
                f"{option}.{name} is not an option.{did_you_mean(str(name), DEFAULTS)} Known: {', '.join(DEFAULTS)}."
            )
    given = {**DEFAULTS, **(told or {})}
    model, language, entities, threshold = (given[name] for name in DEFAULTS)
    entities = [entities] if isinstance(entities, str) else entities
    if not isinstance(entities, list) or not entities or not all(isinstance(each, str) for each in entities):
        raise UserError(f"{option}.entities: {entities!r} is no list of kinds, as [PERSON, LOCATION].")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UserError(f"{option}.threshold is {threshold!r}; it is a score from 0 to 1.")
    if not isinstance(model, str) or not isinstance(language, str):
        raise UserError(f"{option}: model and language are names, as en_core_web_lg and en.")
    if find_spec("presidio_analyzer") is None:
        raise UserError(f'{option} needs presidio-analyzer: pip install "finetune[presidio]".')
    if not Path(model).is_dir() and (not model.isidentifier() or find_spec(model) is None):
        raise UserError(
            f"{option}.model: {model} is neither an installed model of spaCy nor a folder: python -m spacy download "
            "NAME, or name one."
        )

    def scrubbed(text: str) -> str:
        engine = _engine(model, language, tuple(entities), option)
        results = engine.analyze(text=text, language=language, entities=entities, score_threshold=threshold)
        return replaced(text, [(each.start, each.end, each.entity_type, each.score) for each in results])

    return scrubbed


def replaced(text: str, found: Iterable[Found]) -> str:
    """Return a text with what was found replaced by its kind; of what overlaps, the surest and then the longest."""
    kept: list[Found] = []
    for each in sorted(found, key=lambda one: (-one[3], one[0] - one[1], one[0], one[2])):
        if all(each[1] <= other[0] or other[1] <= each[0] for other in kept):
            kept.append(each)
    for start, end, kind, _ in sorted(kept, reverse=True):
        text = f"{text[:start]}<{kind}>{text[end:]}"
    return text


@lru_cache(maxsize=2)
def _engine(model: str, language: str, entities: tuple[str, ...], option: str) -> Any:
    """Return Presidio's engine for a model of spaCy; UserError for a kind that it does not know."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    asked = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    try:
        provider = NlpEngineProvider(nlp_configuration=asked)
        engine = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=[language])
    except (OSError, ValueError) as error:
        raise UserError(f"{option}.model: {model} cannot be loaded: {str(error).splitlines()[0]}.") from None
    known = sorted(engine.get_supported_entities(language))
    for kind in entities:
        if kind not in known:
            near = did_you_mean(kind, known)
            raise UserError(f"{option}.entities: {kind} is not known.{near} Known: {', '.join(known)}.")
    return engine
