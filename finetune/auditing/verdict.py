"""What an audit says in words."""

from __future__ import annotations

from typing import Any

from finetune.auditing.exposure import CHANCE, MOST

AGAINST = "loss against the untrained model"
UNTRAINED = "control: the untrained model"
FEW = 20  # documents, of which an interval says little
APART = 0.05  # from chance, of the untrained model: more is another kind of rows, and no accident of a thousand


def verdict(found: dict[str, Any]) -> list[str]:
    """Return the sentences of an audit's verdict: of secrets, of rows, and what to beware of."""
    lines = []
    if "canaries" in found:
        lines.append(_of_secrets(found["canaries"]))
    lines.append(_of_rows(found["membership"]))
    if not found.get("control_holds", True):
        lines.append("Beware: secrets that were never seen do not rank at random; do not trust the exposures.")
    before = found["membership"].get(UNTRAINED)
    if before is not None and not (before["low"] <= 0.5 + APART and before["high"] >= 0.5 - APART):
        lines.append(
            f"Beware: the untrained model tells the two sets apart too (AUC {before['auc']:.2f}): they are of "
            "different kinds, and the loss alone says nothing of training."
        )
    facts = found.get("facts", {})
    if facts.get("held_out_chose"):
        lines.append(
            "Beware: the validation rows chose the checkpoint, the end of training or its learning rate, so they are "
            "not as strange to the model as rows that it never met: name data.test."
        )
    for split, count in facts.get("documents", {}).items():
        if count < FEW:
            texts = "1 text" if count == 1 else f"{count} texts"
            lines.append(f"Beware: {split} has {texts}, each of many inputs: the intervals are wider in truth.")
    return lines


def _of_secrets(canaries: dict[str, Any]) -> str:
    seen = {int(times): each for times, each in canaries.items() if times != "0" and each["low"] > CHANCE}
    if not seen:
        return "Secrets: none was memorised as far as can be measured, even those that stand 16 times in the rows."
    least = min(seen)
    first = next((times for times in sorted(seen) if seen[times]["first"] >= 0.5), None)
    times = "once" if least == 1 else f"{least} times"
    said = (
        f"Secrets: what stands {times} in the rows is memorised (exposure {seen[least]['exposure']:.1f} of {MOST:.1f}; "
        f"chance is {CHANCE:.2f})"
    )
    if first is None:
        return f"{said}; few are so well known that they could be guessed outright."
    often = "once" if first == 1 else f"{first} times"
    return f"{said}; most that stand {often} are the model's first choice among 1,000, and could be drawn out of it."


def _of_rows(attacks: dict[str, Any]) -> str:
    name = AGAINST if AGAINST in attacks else "loss"
    best = attacks[name]
    interval = f"AUC {best['auc']:.2f} [{best['low']:.2f}, {best['high']:.2f}]"
    if best["low"] <= 0.5:
        return f"Rows: by its loss a row cannot be told to have been trained on ({interval}; chance is 0.50)."
    ease = "easily" if best["auc"] >= 0.75 else "better than by chance" if best["auc"] >= 0.6 else "barely"
    return (
        f"Rows: by its loss a row can be told {ease} to have been trained on ({interval}; chance is 0.50); "
        f"{best['caught']:.0%} of them where at most 1 % of others are taken for one."
    )
