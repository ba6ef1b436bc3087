"""Windows cover a text, overlap, and each place is read where most stands around it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from finetune.tasks.windows import best_window, windows


@pytest.mark.parametrize(("tokens", "room", "overlap"), [(20, 6, 2), (20, 6, 0), (7, 6, 5), (13, 2, 1), (5, 6, 2)])
def test_windows_cover_everything_and_overlap(tokens, room, overlap):
    made = windows(tokens, room, overlap)

    assert sorted({place for start, end in made for place in range(start, end)}) == list(range(tokens))
    assert all(end - start <= room for start, end in made)
    assert all(before[1] - after[0] == overlap for before, after in pairwise(made))


def test_the_window_with_most_around_a_word_is_asked():
    made = [(0, 8), (6, 14), (12, 20)]

    assert [best_window(made, 20, place, place) for place in (0, 6, 7, 12, 13, 19)] == [0, 0, 1, 1, 2, 2]
    assert best_window([(0, 8)], 20, 9, 9) is None
