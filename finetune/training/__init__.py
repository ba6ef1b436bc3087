"""Training: options, the trainer, its checkpoints, progress and the check of the world that came up.

Light: `finetune --help` imports it. Only `option_tables` may be imported without torch.
"""
