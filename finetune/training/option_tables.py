"""What a recipe's `train` section adds to, changes in and refuses of `transformers.TrainingArguments`.

Data only, and light: the recipe reader and the schema read it without importing torch.
"""

from __future__ import annotations

from types import MappingProxyType

ADDED = MappingProxyType(
    {
        "head_learning_rate": "learning rate of the newly initialised modules; that of the others when left out",
        "layer_decay": "a block of layers learns at this share of the rate of the block above it (arXiv:1801.06146)",
        "freeze_layers": "the embeddings and this many of the lowest blocks of layers are not trained",
        "rdrop_alpha": "R-Drop: weight of how far two dropout masks' answers lie apart, such as 1 (arXiv:2106.14448)",
        "adversarial": "fgm or freelb: token embeddings moved against the model (arXiv:1605.07725, arXiv:1909.11764)",
        "adversarial_epsilon": "how far a row's embeddings are moved at most, L2 norm over its tokens",
        "adversarial_steps": "of freelb: passes a step, each from where the last one moved to",
        "adversarial_step_size": "of freelb: L2 norm of one move",
        "dp": "private training: {epsilon or noise_multiplier, delta, max_grad_norm}; one process, a gradient a row",
        "early_stopping_patience": "evaluations without a better score after which training stops",
        "nan_budget": "steps that may be left out for a loss or gradient that is not finite; 0: the first ends the run",
        "seeds": "a list: one run each, under output_dir/seed-N, and seeds.json with the mean of every score",
        "overwrite": "start anew in an output_dir that holds a run",
        "allow_change": "options that a run may go on with although its checkpoint has others, such as [learning_rate]",
        "max_hours": "stop with a checkpoint and exit code 143 after this long: for batch systems with a time limit",
    }
)

REDEFAULTED = MappingProxyType(
    {
        "max_grad_norm": "1; with train.dp its own, of a single row",
        "logging_nan_inf_filter": "false: a loss that is not a number is never hidden",
        "logging_steps": "0.02: fifty points on every curve, however short the run",
        "eval_strategy": "epoch; steps when there is one epoch or max_steps; no without validation rows",
        "eval_steps": "0.25 of one epoch's run, 0.1 of a run with max_steps",
        "save_strategy": "the cadence of evaluation",
        "save_steps": "the cadence of evaluation",
        "save_total_limit": "2, the best one among them",
        "load_best_model_at_end": "true when there are validation rows",
        "metric_for_best_model": "the task's own score",
        "restore_callback_states_from_checkpoint": "true: patience is counted on after a resume",
        "bf16": "true on a CPU or GPU that computes in it, false elsewhere",
        "use_cpu": "true where there is no accelerator",
        "seed": "13",
        "data_seed": "the seed",
        "ddp_find_unused_parameters": "false",
        "activation_checkpointing_kwargs": "{use_reentrant: false}",
    }
)

_PUBLISH = "use the publish section, with the token in HF_TOKEN"
_SCORES = "scores are computed once from all answers; see the evaluate section"
_TOKENS = "tokens are always counted, without padding"

REFUSED = MappingProxyType(
    {
        "push_to_hub": _PUBLISH,
        "hub_token": _PUBLISH,
        "hub_private_repo": _PUBLISH,
        "hub_model_id": _PUBLISH,
        "hub_strategy": _PUBLISH,
        "hub_always_push": _PUBLISH,
        "hub_revision": _PUBLISH,
        "resume_from_checkpoint": "an unfinished output_dir is resumed by itself; train.overwrite starts anew",
        "auto_find_batch_size": "it restarts the run; lower per_device_train_batch_size and raise "
        "gradient_accumulation_steps instead",
        "save_only_model": "a checkpoint that cannot be resumed is none; lower save_total_limit to save space",
        "save_on_each_node": "give an output_dir on a file system that all nodes share",
        "enable_jit_checkpoint": "SIGTERM always saves a checkpoint here, and the same command resumes",
        "label_names": "the task says where its targets are",
        "remove_unused_columns": "the task says which columns reach the model",
        "label_smoothing_factor": "use task.label_smoothing, where the task has it",
        "average_tokens_across_devices": "the loss is always divided by the weight of all processes",
        "include_num_input_tokens_seen": _TOKENS,
        "parallelism_config": "use an FSDP or DeepSpeed profile",
        "prediction_loss_only": _SCORES,
        "eval_accumulation_steps": _SCORES,
        "eval_do_concat_batches": _SCORES,
        "eval_use_gather_object": _SCORES,
        "include_for_metrics": _SCORES,
        "batch_eval_metrics": _SCORES,
        "bf16_full_eval": "use evaluate.precision",
        "fp16_full_eval": "use evaluate.precision",
        "do_train": "it has no effect; the command says what is done",
        "do_eval": "it has no effect; the command says what is done",
        "do_predict": "it has no effect; the command says what is done",
        "local_rank": "the launcher sets it",
        "eval_on_start": "evaluate.baselines scores the untuned model",
        "ignore_data_skip": "a resumed run always goes on with the rows that are left",
    }
)

REFUSED_ACCELERATOR = MappingProxyType(  # keys of train.accelerator_config
    dict.fromkeys(
        ("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler"),
        "batches are dealt so that every process count sees the same rows",
    )
)

RESUME = (  # options that change what is learned: a run that is resumed must not change them
    "learning_rate",
    "head_learning_rate",
    "layer_decay",
    "freeze_layers",
    "rdrop_alpha",
    "adversarial",
    "adversarial_epsilon",
    "adversarial_steps",
    "adversarial_step_size",
    "dp",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "optim_args",
    "optim_target_modules",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "neftune_noise_alpha",
    "bf16",
    "fp16",
    "seed",
    "data_seed",
    "dataloader_drop_last",
    "train_sampling_strategy",
    "metric_for_best_model",
    "greater_is_better",
    "early_stopping_patience",
)

CHANGEABLE = frozenset(  # of these, what `allow_change` may name: nothing that decides which rows come next
    {
        "learning_rate",
        "warmup_steps",
        "num_train_epochs",
        "max_steps",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "rdrop_alpha",
    }
)
