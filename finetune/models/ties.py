"""Weights that a model holds once and uses twice."""

from __future__ import annotations

from typing import Any

from torch import nn


def untie_parted(model: Any) -> None:
    """Say in the configuration that a head is its own, where a new one was trained apart from the embedding.

    An adapter that trains a new head copies it, with the matrix that it shared with the embedding; saved as tied, the
    copy would be lost, and a bias under its second name. Does nothing to a model whose weights are still tied.
    """
    reads, says = model.get_input_embeddings(), model.get_output_embeddings()
    if says is None or says.weight is reads.weight:
        return
    for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    seen: set[int] = set()
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in seen:  # a bias that BERT's head has under two names
                setattr(module, name, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))
            seen.add(id(weight))
