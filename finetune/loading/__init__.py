"""Where models and tokenizers come from: Hub, folder, package, GGUF file, finished run, or from scratch."""

from finetune.loading.configuration import context_length, first_position, load_config
from finetune.loading.image_processor import load_image_processor
from finetune.loading.options import ModelOptions
from finetune.loading.padding import set_padding
from finetune.loading.source import same_weights, source_folder
from finetune.loading.tokenizer import load_tokenizer, train_masked_tokenizer, train_tokenizer
from finetune.loading.weights import announce, load_pretrained, resolved_revision

__all__ = [
    "ModelOptions",
    "announce",
    "context_length",
    "first_position",
    "load_config",
    "load_image_processor",
    "load_pretrained",
    "load_tokenizer",
    "resolved_revision",
    "same_weights",
    "set_padding",
    "source_folder",
    "train_masked_tokenizer",
    "train_tokenizer",
]
