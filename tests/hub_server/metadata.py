"""What the Hub finds wrong with the YAML at the top of a README.md: the rules that cards fall foul of most."""

from __future__ import annotations

import re
from typing import Any

import yaml

LICENSES = {
    "apache-2.0", "mit", "openrail", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-sa-3.0", "gpl-3.0", "llama3", "unknown", "other",
}  # fmt: skip


def problems(card: str) -> list[str]:
    """Return one sentence for each thing that is wrong."""
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", card, re.DOTALL)
    if match is None:
        return []  # a card without metadata is allowed, with a warning
    try:
        found = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(found, dict):
        return ["the metadata must be a mapping"]
    return [*_plain(found), *(problem for result in found.get("model-index", []) for problem in _of_index(result))]


def _plain(found: dict[str, Any]) -> list[str]:
    wrong = []
    if "license" in found and found["license"] not in LICENSES:
        wrong.append(f'"license" must be one of {sorted(LICENSES)}')
    if found.get("license") == "other" and "license_name" not in found:
        wrong.append('"license_name" is required when "license" is "other"')
    languages = found.get("language", [])
    for each in languages if isinstance(languages, list) else [languages]:
        if not re.fullmatch(r"[a-z]{2,3}|multilingual|code", str(each)):
            wrong.append(f'"language" must be an ISO 639 code, not {each!r}')
    bases = found.get("base_model", [])
    for each in bases if isinstance(bases, list) else [bases]:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(each)):
            wrong.append(f'"base_model" with value {each!r} is not valid. Use a model id from the Hub')
    for name in ("tags", "datasets", "metrics"):
        if not all(isinstance(each, str) for each in found.get(name, [])):
            wrong.append(f'"{name}" must be a list of text')
    return wrong


def _of_index(model: Any) -> list[str]:
    wrong = []
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return ['"model-index[].name" must be text']
    for result in model.get("results", []):
        if not result.get("task", {}).get("type"):
            wrong.append('"model-index[].results[].task.type" is required')
        dataset = result.get("dataset", {})
        wrong += [
            f'"model-index[].results[].dataset.{key}" is required' for key in ("name", "type") if key not in dataset
        ]
        for metric in result.get("metrics", []):
            if not metric.get("type"):
                wrong.append('"model-index[].results[].metrics[].type" is required')
            if "value" not in metric or isinstance(metric["value"], dict):
                wrong.append('"model-index[].results[].metrics[].value" is required')
    return wrong
