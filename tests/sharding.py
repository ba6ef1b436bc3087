"""Shard a model as the profile fsdp2 does, in one process on the CPU, and print how far its answers move.

python tests/sharding.py FAMILY

accelerate itself leaves FSDP out on a CPU; torch's fully_shard does not.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import tiny
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from finetune.training.sharded import shard_blocks


def tiny_model(family: str, folder: Path):
    if family in ("gpt2", "opt", "llama"):
        tiny.save_decoder(folder, family)
        return AutoModelForCausalLM.from_pretrained(folder)
    if family in ("bart", "t5"):
        return AutoModelForSeq2SeqLM.from_pretrained(tiny.save_seq2seq(folder, family))
    return AutoModelForSequenceClassification.from_pretrained(tiny.save_encoder(folder, family))


def main(family: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(family, Path(folder)).eval()
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.tensor([[5, 6]])
    before = model(**batch).logits.detach()
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    state = SimpleNamespace(fsdp_plugin=plugin)
    shard_blocks(SimpleNamespace(accelerator=SimpleNamespace(state=state), model=model))
    mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("dp_shard",))
    fsdp2_prepare_model(
        SimpleNamespace(
            state=state, torch_device_mesh=mesh, parallelism_config=SimpleNamespace(fsdp_dim_names=("dp_shard",)),
            mixed_precision="no", is_main_process=True, device=torch.device("cpu"),
        ),
        model,
    )  # fmt: skip
    after = model(**batch).logits
    after.sum().backward()
    units = sum(isinstance(each, FSDPModule) for each in model.modules())
    learned = all(each.grad is not None for each in model.get_input_embeddings().parameters())
    sys.stdout.write(f"apart {float((after - before).abs().max())} units {units} learned {learned}\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
