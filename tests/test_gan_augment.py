"""What the discriminator sees: shifts, holes, colours are what they say, belong to rows and let gradients through."""

from __future__ import annotations

import pytest
import torch

from finetune.models import noise
from finetune.tasks.image_gan import AUGMENTATIONS
from finetune.training.adversarial.augment import POLICIES, augmented, colour, cutout, translation
from finetune.training.adversarial.game import LATENTS, MIX, NOISE, SEEN

KEYS = noise.keys(1, 2, torch.arange(400))


def images(count: int, size: int = 8, colours: int = 3) -> torch.Tensor:
    return torch.rand(count, colours, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def random(count: int, numbers: int) -> torch.Tensor:
    return noise.uniform(KEYS[:count], numbers)


def test_the_task_names_the_policies_that_there_are():
    assert tuple(POLICIES) == AUGMENTATIONS


@pytest.mark.parametrize("size", [8, 13, 32])
def test_a_translation_moves_by_whole_pixels_up_to_an_eighth_and_fills_with_grey(size):
    given, most = images(400, size), max(size // 8, 1)
    moved = translation(given, random(400, 2))

    found = set()
    for image, other in zip(given, moved, strict=True):
        shifts = []
        for down in range(-most, most + 1):
            for right in range(-most, most + 1):
                expected = torch.zeros_like(image)
                rows, columns = (slice(max(each, 0), size + min(each, 0)) for each in (down, right))
                from_rows, from_columns = (slice(max(-each, 0), size - max(each, 0)) for each in (down, right))
                expected[:, rows, columns] = image[:, from_rows, from_columns]
                if torch.equal(expected, other):
                    shifts.append((down, right))
        assert len(shifts) == 1
        found.add(shifts[0])
    sides = {each for shift in found for each in shift}
    assert sides == set(range(-most, most + 1))


@pytest.mark.parametrize("size", [8, 13, 32])
def test_a_cutout_is_a_square_of_half_the_side_that_may_hang_over_the_edge(size):
    seen = cutout(torch.ones(400, 3, size, size), random(400, 2))
    covered, hole = torch.zeros(size, size, dtype=torch.bool), size // 2

    for image in seen:
        assert set(image.unique().tolist()) <= {0.0, 1.0}
        gone = image[0] == 0
        assert torch.equal(image == 0, gone.expand(3, -1, -1))
        sides = [gone.any(dim=dim).nonzero()[:, 0] for dim in (1, 0)]
        for places in sides:
            assert hole // 2 <= len(places) <= hole
            assert places[-1] - places[0] + 1 == len(places)
            if len(places) < hole:
                assert places[0] == 0 or places[-1] == size - 1
        assert int(gone.sum()) == len(sides[0]) * len(sides[1])
        covered |= gone
    assert covered.all()


def test_colour_changes_brightness_saturation_and_contrast_in_their_ranges():
    given, half = images(400), torch.full((400, 3), 0.5)
    torch.testing.assert_close(colour(given, half), given)

    brighter = half.clone()
    brighter[:, 0] = random(400, 1)[:, 0]
    shift = colour(given, brighter) - given
    torch.testing.assert_close(shift, (brighter[:, 0] - 0.5)[:, None, None, None].expand_as(shift), rtol=0, atol=1e-5)
    grey = half.clone()
    grey[:, 1] = 0
    torch.testing.assert_close(colour(given, grey), given.mean(dim=1, keepdim=True).expand_as(given))
    flatter = half.clone()
    flatter[:, 2] = 0
    middle = given.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(colour(given, flatter), middle + (given - middle) / 2)


@pytest.mark.parametrize("policy", [*((name,) for name in POLICIES), tuple(POLICIES)])
def test_what_is_seen_of_a_row_is_its_own_however_rows_are_batched(policy):
    given = images(12)
    whole = augmented(given, policy, KEYS[:12], 10)
    parts = [augmented(given[cut], policy, KEYS[:12][cut], 10) for cut in (slice(5), slice(5, 12))]
    turned = torch.arange(12).flip(0)

    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(augmented(given[turned], policy, KEYS[:12][turned], 10)[turned], whole)
    assert not torch.equal(whole, given)
    assert not torch.equal(augmented(given, policy, KEYS[:12], 13), whole)
    assert not torch.equal(augmented(given, policy, noise.keys(1, 3, torch.arange(12)), 10), whole)


@pytest.mark.parametrize("policy", [*((name,) for name in POLICIES), tuple(POLICIES)])
def test_gradients_go_through_what_is_seen(policy):
    given = images(2).double().requires_grad_()

    assert torch.autograd.gradcheck(lambda each: augmented(each, policy, KEYS[:2], 10), (given,))


def test_no_policy_changes_nothing():
    given = images(3)
    assert augmented(given, (), KEYS[:3], 10) is given


def test_no_two_purposes_share_a_stream_of_random_numbers():
    seen = [stream + place for stream in SEEN.values() for place in range(len(POLICIES))]
    noises = [stream + of_player for stream in NOISE.values() for of_player in (0, 2)]
    streams = [MIX, *LATENTS.values(), *noises, *seen]

    assert len(streams) == len(set(streams))
