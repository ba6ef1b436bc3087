"""From-scratch families, known to `AutoConfig` and `AutoModel` once this package is imported.

A new family is one file that imports torch and transformers alone, and its lines in `register`.
"""

from __future__ import annotations


def register() -> None:
    """Make every family known to transformers' Auto classes."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageClassification

    import finetune.models.quantized  # noqa: F401  # registers its way of loading
    from finetune.models.gan import GANConfig, Generator
    from finetune.models.image_classifier import ImageClassifier, ImageClassifierConfig
    from finetune.models.rnn import RNNConfig, RNNForCausalLM
    from finetune.models.text_vae import TextVAE, TextVAEConfig
    from finetune.models.vae import VAE
    from finetune.models.vae_config import VAEConfig
    from finetune.models.vector_vae import VectorVAE, VectorVAEConfig
    from finetune.models.vqvae import VQVAE, VQVAEConfig

    AutoConfig.register("finetune-gan", GANConfig)
    AutoModel.register(GANConfig, Generator)
    AutoConfig.register("finetune-image-classifier", ImageClassifierConfig)
    AutoModel.register(ImageClassifierConfig, ImageClassifier)
    AutoModelForImageClassification.register(ImageClassifierConfig, ImageClassifier)
    AutoConfig.register("finetune-rnn-lm", RNNConfig)
    AutoModelForCausalLM.register(RNNConfig, RNNForCausalLM)
    AutoConfig.register("finetune-vae", VAEConfig)
    AutoModel.register(VAEConfig, VAE)
    AutoConfig.register("finetune-vector-vae", VectorVAEConfig)
    AutoModel.register(VectorVAEConfig, VectorVAE)
    AutoConfig.register("finetune-vqvae", VQVAEConfig)
    AutoModel.register(VQVAEConfig, VQVAE)
    AutoConfig.register("finetune-text-vae", TextVAEConfig)
    AutoModel.register(TextVAEConfig, TextVAE)


register()
