"""The numbers of an audit and what they are said to mean."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.auditing import exposure, membership
from finetune.auditing.verdict import verdict


def test_the_area_is_the_chance_that_a_member_lies_lower():
    from sklearn.metrics import roc_auc_score

    chooser = np.random.default_rng(1)
    members, others = chooser.integers(0, 9, 80) * 1.0, chooser.integers(1, 10, 50) * 1.0

    score = membership.auc(members, others, 300, 1)

    target = np.r_[np.ones(80), np.zeros(50)]
    assert score.value == pytest.approx(roc_auc_score(target, -np.r_[members, others]))
    assert score.low < score.value < score.high
    same = membership.auc(chooser.normal(size=400), chooser.normal(size=400), 300, 1)
    assert same.low < 0.5 < same.high


@pytest.mark.parametrize("count", [20, 50, 99, 100, 150, 1000])
def test_no_more_than_one_percent_of_held_out_rows_are_taken_for_members(count):
    others = np.random.default_rng(count).permutation(count).astype(float)

    taken = membership.caught(others, others)  # each of the others is told as a member would be

    assert taken <= membership.FALSE_ALARMS
    assert taken == (count // 100) / count  # and no fewer than that allows


def test_texts_that_make_several_inputs_are_drawn_whole():
    chooser = np.random.default_rng(5)
    documents = [(place, side) for side in (0, 1) for place in range(12)]
    level = {each: chooser.normal() for each in documents}  # inputs of one document are alike
    sides = [np.repeat([level[place, side] for place in range(12)], 30) for side in (0, 1)]
    rows = np.repeat(np.arange(12), 30)

    alone = membership.auc(*sides, 500, 1)
    whole = membership.auc(*sides, 500, 1, (rows, rows))

    assert whole.value == alone.value
    assert whole.high - whole.low > 3 * (alone.high - alone.low)
    single = np.arange(360)
    assert membership.auc(*sides, 500, 1, (single, single)) == alone  # a text an input: nothing has changed
    attacks = membership.attacks(*sides, None, 50, 1, (rows, rows))
    assert attacks["loss"]["high"] - attacks["loss"]["low"] > 3 * (alone.high - alone.low)


def test_a_verdict_over_few_texts_says_that_its_intervals_are_too_narrow():
    found = {"membership": {"loss": attack(0.6, 0.55, 0.65)}, "facts": {"documents": {"train": 50, "test": 1}}}

    assert [line for line in verdict(found) if "Beware" in line] == [
        "Beware: test has 1 text, each of many inputs: the intervals are wider in truth."
    ]


def test_losses_stand_as_they_are_however_small():
    from finetune.auditing.audit import _plain

    sides = (np.array([1e-6, 2e-6]), np.array([3e-7, 4e-5]))

    assert _plain("validation", sides) == {"trained on": [1e-6, 2e-6], "validation": [3e-7, 4e-5]}


def test_the_mean_of_random_ranks_is_chance():
    assert pytest.approx(1 / np.log(2), abs=0.01) == exposure.CHANCE


def attack(value, low, high):
    return {"auc": value, "low": low, "high": high, "caught": 0.02}


def secrets(*means):
    return {
        times: {"exposure": mean, "low": mean - 0.5, "high": mean + 0.5, "first": float(mean > 9), "n": 20}
        for times, mean in zip(("0", "1", "4", "16"), means, strict=True)
    }


@pytest.mark.parametrize(
    ("canaries", "told", "said"),
    [
        (secrets(1.4, 1.5, 1.6, 1.7), attack(0.5, 0.48, 0.52), ["none was memorised", "cannot be told"]),
        (secrets(1.4, 1.5, 3.0, 9.5), attack(0.8, 0.7, 0.9), ["what stands 4 times", "stand 16 times", "told easily"]),
        (secrets(1.4, 9.9, 9.9, 9.9), attack(0.62, 0.6, 0.7), ["what stands once", "better than by chance"]),
    ],
)
def test_the_verdict_says_from_when_on(canaries, told, said):
    lines = " ".join(verdict({"canaries": canaries, "control_holds": True, "membership": {"loss": told}}))

    assert all(each in lines for each in said)
    assert "Beware" not in lines


def test_a_verdict_that_is_not_to_be_trusted_says_so():
    apart = {"loss": attack(0.9, 0.8, 0.95), "loss against the untrained model": attack(0.5, 0.4, 0.6),
             "control: the untrained model": attack(0.9, 0.8, 0.95)}  # fmt: skip
    lines = verdict({"canaries": secrets(5, 5, 5, 5), "control_holds": False, "membership": apart})

    assert sum(line.startswith("Beware") for line in lines) == 2
    assert "cannot be told" in " ".join(lines)
