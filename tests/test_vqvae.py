"""Quantisers against their definitions, and the codebook that processes and micro-batches share."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoConfig, AutoModel

import finetune.models  # noqa: F401  # makes the family known
from finetune.models.vqvae import FSQ, VQVAE, Codebook, VQVAEConfig


def tiny(**options) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(VQVAEConfig(**{"image_size": 8, "channels": (8,), **options}))


def test_finite_scalars_are_levels_of_even_and_odd_count_with_a_number_for_each():
    quantise = FSQ((4, 5, 3))
    codes, numbers, cost = quantise(4 * torch.randn(20000, 3))

    assert [column.unique().tolist() for column in codes.T] == [
        [-1.0, -0.5, 0.0, 0.5],
        [-1.0, -0.5, 0.0, 0.5, 1.0],
        [-1.0, 0.0, 1.0],
    ]
    assert sorted(numbers.unique().tolist()) == list(range(60))
    assert len(torch.cat((codes, numbers[:, None]), dim=1).unique(dim=0)) == 60  # one number, one code
    assert not cost.any()


def test_the_gradient_of_a_rounded_number_is_that_of_its_squashing():
    values = torch.tensor([[0.3, -0.2]], requires_grad=True)
    codes, _, _ = FSQ((5, 5))(values)
    codes.sum().backward()

    half = 2 * (1 - 1e-3)
    expected = half / 2 * (1 - torch.tanh(values.detach()) ** 2)
    torch.testing.assert_close(values.grad, expected)


def test_a_code_is_the_nearest_direction_and_its_gradient_goes_straight_through():
    book = Codebook(10, 4, 0.99, 0.25).eval()
    values = torch.randn(50, 4, requires_grad=True)
    codes, numbers, cost = book(values)
    unit = torch.nn.functional.normalize(values.detach(), dim=1)
    directions = torch.nn.functional.normalize(book.codes, dim=1)

    assert torch.equal(numbers, torch.cdist(unit, directions).argmin(dim=1))
    torch.testing.assert_close(codes.detach(), directions[numbers])
    torch.testing.assert_close(cost.detach(), 0.25 * (unit - directions[numbers]).square().sum(dim=1))
    codes.sum().backward()
    assert bool(values.grad.any())


def test_the_codebook_moves_by_the_mean_of_a_step_and_only_when_the_next_one_begins():
    book = Codebook(6, 3, 0.9, 0.25).train()
    before, values = book.codes.clone(), torch.randn(40, 3)
    unit = torch.nn.functional.normalize(values, dim=1)
    _, numbers, _ = book(values, torch.tensor(0.0))
    assert torch.equal(book.codes, before * 0.9)  # the directions are those of before

    book(torch.randn(5, 3), torch.tensor(0.1))
    expected = 0.9 * 0.9 * before
    for number, value in zip(numbers, unit, strict=True):
        expected[number] += 0.1 * value
    torch.testing.assert_close(book.codes, expected)


def test_micro_batches_of_a_step_move_the_codebook_as_one_batch():
    whole, parts = (Codebook(6, 3, 0.9, 0.25).train() for _ in range(2))
    parts.load_state_dict(whole.state_dict())
    for step in range(4):
        values, progress = torch.randn(24, 3), torch.tensor(step / 4)
        whole(values, progress)
        for part in values.split(6):
            parts(part, progress)

    torch.testing.assert_close(parts.codes, whole.codes)
    torch.testing.assert_close(parts.pending, whole.pending)


def shared_codebook(rank: int, folder: str, values: torch.Tensor, start: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    book = Codebook(6, 3, 0.9, 0.25).train()
    book.load_state_dict(start)
    for step in range(3):
        book(values[step, rank::2], torch.tensor(step / 3))
    save_file(book.state_dict(), f"{folder}/{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_two_processes_share_one_codebook(tmp_path):
    from safetensors.torch import load_file

    alone, values = Codebook(6, 3, 0.9, 0.25).train(), torch.randn(3, 20, 3)
    start = {name: each.clone() for name, each in alone.state_dict().items()}
    given = (str(tmp_path), values, start)
    torch.multiprocessing.start_processes(shared_codebook, given, nprocs=2, start_method="fork")
    for step in range(3):
        alone(values[step], torch.tensor(step / 3))

    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    for name, expected in alone.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected)


@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
@pytest.mark.parametrize(("size", "channels", "side"), [(8, 1, 4), (28, 1, 7), (33, 3, 8), (64, 3, 8)])
def test_every_size_has_a_map_of_codes_and_comes_back(quantizer, size, channels, side):
    model = VQVAE(VQVAEConfig(image_size=size, num_channels=channels, quantizer=quantizer))
    images = torch.rand(2, channels, size, size)
    out = model(images)
    out.loss.backward()

    assert out.codes.shape == (2, side * side)
    assert model.reconstruct(images)[1].shape == images.shape
    assert all(each.grad is not None for each in model.parameters())


def test_codes_cost_as_much_as_naming_them_evenly():
    out = tiny()(torch.rand(3, 1, 8, 8))

    assert out.kl[:, 0].tolist() == pytest.approx([16 * math.log(1000)] * 3)
    assert out.loss.item() == pytest.approx(out.reconstruction_loss.mean().item())


@pytest.mark.parametrize("options", [{}, {"quantizer": "ema", "num_channels": 3}])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, options):
    model = AutoModel.from_config(AutoConfig.for_model("finetune-vqvae", image_size=8, channels=(8,), **options))
    images = torch.rand(4, options.get("num_channels", 1), 8, 8)
    for step in range(3):
        model.train()(images, progress=torch.tensor(step / 3))
    model.eval().save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()

    assert torch.equal(again(images).loss, model(images).loss)
    assert torch.equal(again.encode(images), model.encode(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"quantizer": "kmeans"}, "kmeans"), ({"levels": (8, 1)}, "from 2 on"), ({"channels": (8,) * 4}, "leave no map")],
)
def test_a_model_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)
