"""What a GAN cannot be given: one line through the command, exit 2, nothing written."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from finetune.cli import main

SCRATCH = {"model_type": "finetune-gan", "preset": "mlp", "hidden_sizes": [8], "latent_dim": 4}


def refused(made: dict, write_recipe, capsys) -> str:
    """Train these sections; return the one line that is said after checking that nothing was written."""
    made["train"].pop("bf16", None)
    recipe = write_recipe(made)
    before = set(recipe.parent.rglob("*"))

    code = main(["train", str(recipe)])

    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("finetune: ")]
    assert code == 2, error
    assert len(said) == 1, error
    assert "Traceback" not in error
    assert set(recipe.parent.rglob("*")) == before
    return said[0]


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("fp16", True, "train.fp16: one gradient scaler cannot serve two players; use train.bf16."),
        ("head_learning_rate", 0.1, "train.head_learning_rate does not work with adversarial training: use task.discr"),
        ("adam_beta1", 0.5, "train.adam_beta1 does not work with adversarial training: use task.adam_betas"),
        ("adam_beta2", 0.5, "train.adam_beta2 does not work with adversarial training: use task.adam_betas"),
        ("neftune_noise_alpha", 5.0, "train.neftune_noise_alpha does not work with adversarial training"),
        ("gradient_checkpointing", True, "train.activation_checkpointing does not work with adversarial training"),
        ("torch_compile", True, "train.torch_compile does not work with adversarial training"),
        ("use_liger_kernel", True, "train.use_liger_kernel does not work with adversarial training"),
        ("optim_target_modules", "all-linear", "train.optim_target_modules does not work with adversarial training"),
        ("train_sampling_strategy", "group_by_length", "train.train_sampling_strategy does not work with adversarial"),
        ("optim", "galore_adamw", "train.optim: galore_adamw is not offered for two players; use one of adamw_torch,"),
    ],
)
def test_options_of_training_that_two_players_cannot_be_given(sections, write_recipe, capsys, option, value, line):
    assert line in refused(sections("image-gan", train={option: value}), write_recipe, capsys)


def test_a_schedule_that_watches_a_score_is_refused(sections, write_recipe, capsys):
    train = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}

    line = "train.lr_scheduler_type: a schedule that watches a score does not fit two players."
    assert line in refused(sections("image-gan", train=train), write_recipe, capsys)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"loss": "wgan"}, 'task.loss is "wgan"; known: r3gan, hinge, bce, wgan-gp. Did you mean wgan-gp?'),
        ({"r1_gama": 1.0}, "task.r1_gama is not an option of image-gan. Did you mean r1_gamma?"),
        ({"diffaugment": ["cutuot"]}, "task.diffaugment: 'cutuot' is not known: colour, translation, cutout. Did you"),
        ({"diffaugment": ["brightness"]}, "task.diffaugment: 'brightness' is not known: colour, translation, cutout."),
        ({"diffaugment": "cutout"}, 'task.diffaugment is "cutout"; it must be a list of text. Write it so: [cutout].'),
        ({"r1_gamma": -1.0}, "task.r1_gamma is -1.0; give 0 or more."),
        ({"r2_gamma": ".nan"}, "task.r2_gamma"),
        ({"gp_weight": -1.0}, "task.gp_weight is -1.0; give 0 or more."),
        ({"instance_noise": -0.1}, "task.instance_noise is -0.1; give 0 or more."),
        ({"ema_decay": 1.0}, "task.ema_decay is 1.0; give 0, or a share below 1 such as 0.999."),
        ({"n_critic": 0}, "task.n_critic is 0; give 1 or more."),
        ({"adam_betas": [0.5, 1.0]}, "task.adam_betas are [0.5, 1.0]; give two numbers from 0 to below 1."),
        ({"discriminator_learning_rate": -1.0}, "task.discriminator_learning_rate is -1.0; give 0 or more."),
        ({"image_size": 9}, "task.image_size is 9, and the images have 8: see data.image."),
        ({"num_channels": 3}, "task.num_channels is 3, and the images have 1: see data.image."),
        ({"condition": "lable"}, 'has no column "lable"; its columns: "image", "label". Did you mean label?'),
        ({"condition": "label", "labels": ["0"]}, "column 'label' is '1'"),
    ],
)
def test_options_of_the_game_that_cannot_be(sections, write_recipe, capsys, options, line):
    assert line in refused(sections("image-gan", task=options), write_recipe, capsys)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"preset": "stylegan"}, "model.config: preset 'stylegan' is not one of dcgan, resnet, mlp"),
        ({"prset": "mlp"}, "model.config.prset is not an option of finetune-gan. Did you mean preset?"),
        ({"hidden_sizes": 5}, "model.config"),
        ({"latent_dim": 0}, "model.config: latent_dim is 0; it must be positive"),
        ({"generator_norm": "layer"}, "model.config: generator_norm 'layer' is neither batch nor none"),
        ({"image_size": 9}, "model: its image_size is 9, and the task makes it 8."),
        ({"num_classes": 3}, "model: its num_classes is 3, and the task makes it 0."),
        ({"model_type": "finetune-vae"}, "model: image-gan trains finetune-gan, and not finetune-vae."),
        ({"model_type": "finetune-gann"}, "model.config.model_type: 'finetune-gann' is not known. Did you mean"),
    ],
)
def test_networks_that_cannot_be(sections, write_recipe, capsys, config, line):
    config = {"model_type": "finetune-gan"} | config if "model_type" in config else {**SCRATCH, **config}

    assert line in refused(sections("image-gan", model={"config": config}), write_recipe, capsys)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_half_precision_are_refused(sections, write_recipe, capsys, dtype):
    line = f"model.dtype is {dtype}: an average of small steps needs float32; use train.bf16."

    assert line in refused(sections("image-gan", model={"dtype": dtype}), write_recipe, capsys)


def test_an_adapter_is_refused_from_scratch_and_on_weights(sections, write_recipe, capsys, tmp_path):
    adapter = {"peft_type": "LORA", "r": 2, "target_modules": "all-linear"}
    line = "adapter.peft_type LORA adapts weights, and model.config trains from scratch."
    assert line in refused({**sections("image-gan"), "adapter": adapter}, write_recipe, capsys)

    from finetune.models.gan import GANConfig, Generator

    Generator(GANConfig(**{**SCRATCH, "image_size": 8, "num_channels": 1})).save_pretrained(tmp_path / "weights")
    made = sections("image-gan", model={"path": str(tmp_path / "weights"), "config": None}) | {"adapter": adapter}
    assert "adapter: adversarial training trains whole networks. Leave the section out." in refused(
        made, write_recipe, capsys
    )


def test_a_stream_is_refused(sections, write_recipe, capsys):
    made = sections("image-gan", data={"streaming": True}, train={"max_steps": 2})

    assert "data.streaming: images are read whole; leave it out" in refused(made, write_recipe, capsys)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed holds one model, and adversarial training has two"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "fp8 holds one model, and adversarial training has two: use train.bf16."),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "train.fp16: one gradient scaler cannot serve two players"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP does not shard on a CPU"),
    ],
)
def test_profiles_that_hold_one_model_are_refused(sections, write_recipe, capsys, monkeypatch, name, value, line):
    monkeypatch.setenv(name, value)

    assert line in refused(sections("image-gan"), write_recipe, capsys)


@pytest.mark.parametrize(
    ("rows", "batch", "drop_last", "refused"),
    [(33, 16, False, True), (33, 16, True, False), (32, 16, False, False), (9, 1, True, True), (1, 16, False, True)],
)
def test_batch_norm_of_plain_layers_is_refused_a_batch_of_one_image(rows, batch, drop_last, refused):
    from types import SimpleNamespace

    from finetune.errors import UserError
    from finetune.models.gan import GANConfig, Generator
    from finetune.training.adversarial.refusals import refuse
    from finetune.training.options import TrainOptions

    args = TrainOptions(bf16=False, per_device_train_batch_size=batch, dataloader_drop_last=drop_last)
    shape = {"image_size": 8, "num_channels": 1, "latent_dim": 4}
    convolutions = Generator(GANConfig(preset="dcgan", channels=4, **shape))
    plain = Generator(GANConfig(preset="mlp", hidden_sizes=[8], generator_norm="batch", **shape))

    refuse(args, convolutions, SimpleNamespace(num_rows=rows))  # each image has many places to take a mean over
    with (
        pytest.raises(
            UserError,
            match=rf"^train\.per_device_train_batch_size: {rows} images in batches of {batch} "
            "leave one alone, and batch norm of plain layers needs two",
        )
        if refused
        else contextlib.nullcontext()
    ):
        refuse(args, plain, SimpleNamespace(num_rows=rows))


def test_fsdp_is_refused_where_it_would_shard(monkeypatch):
    from types import SimpleNamespace

    import torch

    from finetune.errors import UserError
    from finetune.training.adversarial.refusals import refuse
    from finetune.training.options import TrainOptions

    args, network = TrainOptions(bf16=False), SimpleNamespace(dtype=torch.float32)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="FSDP is not offered for adversarial training: use the profile cpu, gpu or"):
        refuse(args, network, SimpleNamespace(num_rows=1))


def test_a_processor_with_other_pixels_is_refused(sections, write_recipe, capsys, tmp_path):
    from finetune.loading import ModelOptions, load_image_processor
    from finetune.models.gan import GANConfig, Generator

    folder = tmp_path / "weights"
    Generator(GANConfig(**{**SCRATCH, "image_size": 8, "num_channels": 1})).save_pretrained(folder)
    load_image_processor(ModelOptions(), 8, 1, 0.0, 1.0).save_pretrained(folder)
    made = sections("image-gan", model={"path": str(folder), "config": None})

    line = "model.path: its image processor has other pixels than a GAN, which takes them as -1 to 1."
    assert line in refused(made, write_recipe, capsys)


def test_a_game_that_diverges_stops_with_the_rows_of_its_step(sections, write_recipe, capsys, home: Path):
    made = sections("image-gan", train={"learning_rate": 1e30})

    assert main(["train", str(write_recipe(made))]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    left = "the step was broken off after 1 of the discriminator's"
    assert f"step 1: the loss is not a finite number; {left}. Its batch: {home}/train.npz:" in said
    found = json.loads((Path(made["train"]["output_dir"]) / "nonfinite.json").read_text())
    assert len(found["row_ids"]) == 16
