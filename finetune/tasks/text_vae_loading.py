"""The model of the task text-vae: from scratch, from a run, or from two pretrained halves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.tasks.two_tokenizers import decoder_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.loading import ModelOptions
    from finetune.task import Processor

FAMILY = "finetune-text-vae"


def load_text_vae(model: ModelOptions, processor: Processor, max_length: int) -> tuple[PreTrainedModel, list[str]]:
    """Return the model, and the names of its new parameters beside pretrained halves.

    Raises:
        UserError: `model` describes another family, or a half reads fewer tokens than `max_length`.
    """
    from transformers import AutoModel

    from finetune.loading import load_config, load_pretrained, set_padding

    words = decoder_tokenizer(processor)
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config: Any = load_config(model, **({} if model.path else {"vocab_size": len(words), **ends}))
    if config.model_type != FAMILY:
        where = "model.path" if model.path else "model.config.model_type"
        raise UserError(f"{where}: text-vae trains the family {FAMILY}, and this is {config.model_type}.")
    if model.path is None and config.preset == "pretrained":
        network, new = _from_halves(model, config, max_length)
    else:
        network, new = load_pretrained(model, AutoModel, config)
        for weight in network.parameters():  # mapped from a file they lie at odd addresses, by which GRUs round
            weight.data = weight.data.clone()
    set_padding(network, words)
    return network, new


def _from_halves(model: ModelOptions, config: Any, max_length: int) -> tuple[PreTrainedModel, list[str]]:
    from transformers import AutoModel, AutoModelForCausalLM

    from finetune.loading import context_length, load_config, load_pretrained
    from finetune.models.text_vae_pretrained import without_pooler

    given = dict(model.config or {})
    sources = {half: replace(model, path=given[half], config=None, tokenizer=None) for half in ("encoder", "decoder")}
    configs = {half: load_config(source) for half, source in sources.items()}
    limit = context_length(configs["decoder"])
    if limit and max_length > limit:
        raise UserError(f"task.max_length: {max_length} is more than the {limit} positions that the decoder has.")
    kinds = {"encoder": AutoModel, "decoder": AutoModelForCausalLM}
    loaded = {half: load_pretrained(sources[half], kinds[half], configs[half]) for half in kinds}
    without_pooler(loaded["encoder"][0])
    for half, (network, _) in loaded.items():
        setattr(config, half, network.config.to_dict())
    embedding: Any = loaded["decoder"][0].get_input_embeddings()
    config.vocab_size = embedding.weight.shape[0]
    whole: Any = AutoModel.from_config(config, dtype=loaded["decoder"][0].dtype)
    known = {name for name, _ in whole.named_parameters()}
    new = {name for name in known if ".network." not in name}
    for half, (network, fresh) in loaded.items():
        getattr(whole, half).network = network
        new |= {f"{half}.network.{name}" for name in fresh} & known
    whole.name_or_path = str(given["decoder"])  # the weights are another model's: an adapter may stand beside them
    return whole, sorted(new)
