from __future__ import annotations

import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from finetune.tasks.seq2seq_loading import _leave_unread

SIZES = {
    "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 40, "decoder_vocab_size": 40,
    "max_position_embeddings": 16, "pad_token_id": 1, "decoder_start_token_id": 1,
}  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
def test_what_no_gradient_reaches_is_not_trained_and_all_else_is(tied, tmp_path):
    MarianMTModel(MarianConfig(tie_word_embeddings=tied, **SIZES)).save_pretrained(tmp_path)
    model = MarianMTModel.from_pretrained(tmp_path)

    _leave_unread(model)

    ids = torch.randint(3, 40, (2, 5))
    model(input_ids=ids, decoder_input_ids=ids).logits.sum().backward()
    assert model.model.shared.weight.requires_grad is tied
    assert not model.model.encoder.embed_positions.weight.requires_grad
    assert all((each.grad is not None) == each.requires_grad for each in model.parameters())
