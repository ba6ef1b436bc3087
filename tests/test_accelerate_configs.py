"""The launch profiles: accelerate reads every key of each, and each is what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser

FOLDER = Path(__file__).parents[1] / "accelerate_configs"
NAMES = ["cpu", "ddp", "fsdp2", "gpu", "multi_node", "zero2", "zero3"]
NESTED = [
    pytest.param(name, section, id=f"{name}-{section}")
    for name, section in [("fsdp2", "fsdp_config"), ("zero2", "deepspeed_config"), ("zero3", "deepspeed_config")]
]


def profile(name: str) -> ClusterConfig:
    return load_config_from_file(str(FOLDER / f"{name}.yaml"))


def test_the_profiles_are_those_that_the_readme_names():
    assert sorted(path.stem for path in FOLDER.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_every_profile(name):
    config = profile(name)

    assert isinstance(config, ClusterConfig)
    assert config.num_processes >= 1, "accelerate refuses to launch a profile that names no number of processes"


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_opens_with_a_comment_and_its_launch_line(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")

    assert text.startswith("# ")
    assert f"accelerate launch --config_file accelerate_configs/{name}.yaml" in text


@pytest.mark.parametrize("name", NAMES)
def test_no_profile_decides_the_precision_that_belongs_to_the_recipe(name):
    assert profile(name).mixed_precision is None


def test_a_key_that_accelerate_does_not_know_is_refused(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text((FOLDER / "ddp.yaml").read_text(encoding="utf-8") + "ipex_config: {}\n", encoding="utf-8")

    with pytest.raises(ValueError, match="unknown keys"):
        load_config_from_file(str(path))


@pytest.mark.parametrize(("name", "section"), NESTED)
def test_nested_keys_are_options_of_the_launcher(name, section):
    # the launcher copies them over its own options and ignores in silence what it does not know
    known = vars(launch_command_parser().parse_args(["script.py"]))

    assert set(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))[section]) <= set(known)


def test_the_cpu_profile_starts_two_processes():
    config = profile("cpu")

    # with MULTI_CPU, or through `accelerate launch --cpu`, accelerate starts one process in silence
    assert (config.distributed_type, config.use_cpu, config.num_processes) == ("MULTI_GPU", True, 2)


def test_processes_of_several_machines_are_shared_out_evenly():
    config = profile("multi_node")

    assert config.num_machines > 1
    assert config.num_processes % config.num_machines == 0


def test_the_fsdp_profile_is_version_2_and_has_no_key_of_version_1():
    config = profile("fsdp2").fsdp_config

    assert config["fsdp_version"] == 2
    assert not {"fsdp_backward_prefetch", "fsdp_use_orig_params", "fsdp_sync_module_states"} & set(config)


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_zero_profiles_have_the_stage_of_their_name(name, stage):
    config = profile(name).deepspeed_config

    assert config["zero_stage"] == stage
    assert config["gradient_accumulation_steps"] == config["gradient_clipping"] == "auto"
