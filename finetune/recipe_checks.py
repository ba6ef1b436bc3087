"""What two options of a recipe may not say together; each message names both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from finetune.editing import Step, plan
from finetune.errors import UserError

if TYPE_CHECKING:
    from finetune.recipe import Recipe

WITHOUT_HEAD = {"causal-lm", "chat"}  # tasks whose model comes whole: nothing in it is new
PLACES = {"question-answering"}  # tasks whose targets are places in a text
OWN_SCORES = {"image-vae", "text-vae"}  # tasks that look at what they generate beside training rows, without others
PRETRAINED = {  # tasks that need a model's source
    "text-classification",
    "token-classification",
    "question-answering",
    "causal-lm",
    "masked-lm",
    "chat",
    "seq2seq",
    "text-vae",
}


def check_together(recipe: Recipe) -> None:
    """Raise UserError for the first contradiction between two options."""
    for problem in contradictions(recipe):
        raise UserError(problem)


def contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield one sentence for every pair of options that cannot both be meant."""
    yield from _of_data(recipe)
    yield from _of_model(recipe)
    yield from _of_train(recipe)
    if recipe.train.dp is not None:
        yield from _of_privacy(recipe)
    yield from _of_evaluate(recipe)
    yield from _of_novelty(recipe)


def _of_data(recipe: Recipe) -> Iterator[str]:
    data, columns = recipe.data, recipe.task.columns()
    if getattr(data.validation, "stratify", False) and columns.label is None:
        yield f"data.validation.stratify keeps the share of each label, and task.kind {recipe.task.kind} has no labels."
    if data.streaming and recipe.train.max_steps <= 0:
        yield "data.streaming reads rows without knowing how many there are: train.max_steps must say when to end."
    if data.streaming and recipe.train.train_sampling_strategy not in ("random", "sequential"):
        wanted = recipe.train.train_sampling_strategy
        yield f"train.train_sampling_strategy {wanted} needs every row at once, and data.streaming is on."
    varies = columns.label is not None and columns.image is None and columns.words is None
    varies = varies and recipe.task.kind not in PLACES
    if data.augment is not None and not varies:
        yield f"data.augment varies texts that have a label as a whole; those of task.kind {recipe.task.kind} have not."
    by_base = data.augment is not None and data.augment.contextual and data.augment.masked_lm is None
    if by_base and recipe.model.path is None:
        yield "data.augment.masked_lm is missing: model.config trains from scratch, and knows no words yet."
    if data.clean:
        yield from _of_cleaning(recipe, plan(data.clean))
    for split in ("train", "validation", "test"):
        if getattr(data, f"max_{split}_rows") is not None and getattr(data, split) is None:
            yield f"data.max_{split}_rows limits rows that are not there: data.{split} is missing."


def may_scrub(recipe: Recipe) -> bool:
    """Say whether data.clean could hide something in the rows of a recipe's task."""
    return next(_of_cleaning(recipe, plan(["scrub"])), None) is None


def _of_cleaning(recipe: Recipe, steps: Iterable[Step]) -> Iterator[str]:
    kind, columns = recipe.task.kind, recipe.task.columns()
    if columns.image is not None:
        yield f"data.clean cleans texts, and task.kind {kind} reads images."
    if columns.parts is not None:
        yield f"data.clean cleans columns of text, and task.kind {kind} makes its own of several; clean the files."
    for step in steps:
        if kind in PLACES and step.edit is not None:
            yield f"data.clean: {step.name} moves the places in a text that task.kind {kind} learns; clean the files."
        if columns.words is not None:
            yield f"data.clean: {step.name} looks at texts, and the rows of task.kind {kind} are lists of words."
        if step.of_labels and columns.label is None:
            yield f"data.clean: {step.name} is for tasks with labels, and task.kind {kind} learns to write."


def _of_model(recipe: Recipe) -> Iterator[str]:
    model, kind = recipe.model, recipe.task.kind
    if kind in PRETRAINED and model.path is None and model.config is None:
        yield f"model.path is missing: task.kind {kind} needs weights, or model.config to train from scratch."
    if model.path is not None and model.config is not None:
        yield "model.path names weights and model.config trains from scratch; leave one of them out."
    if model.revision is not None and model.path is None:
        yield "model.revision is of a Hub id, and model.path is missing."
    if model.gguf_file is not None and model.path is None:
        yield "model.gguf_file is a file inside model.path, and model.path is missing."
    if model.config is not None and not isinstance(model.config.get("model_type"), str):
        yield "model.config.model_type is missing: model.config needs a family, such as gpt2 or bert."
    if model.layers is not None and model.path is None:
        yield "model.layers chooses some of the layers of model.path, and model.path is missing."
    if model.layers is not None and recipe.adapter is not None:
        yield f"model.layers makes a model of its own, and adapter.peft_type {_kind(recipe.adapter)} keeps the base."
    scratch = model.config is not None and not model.config.get("decoder")  # else its halves are pretrained
    if recipe.adapter is not None and scratch:
        yield f"adapter.peft_type {_kind(recipe.adapter)} adapts weights, and model.config trains from scratch."
    if model.quantize is not None and _kind(recipe.adapter) in (None, "head"):
        yield f"model.quantize {model.quantize} freezes the base, and adapter is missing: nothing would be trained."
    if getattr(recipe.adapter, "num_virtual_tokens", 0) is None:
        yield f"adapter.num_virtual_tokens is missing: {_kind(recipe.adapter)} must know how many it learns, e.g. 20."
    if _kind(recipe.adapter) == "head" and kind in WITHOUT_HEAD:
        yield f"adapter.peft_type head trains a new head, and task.kind {kind} has none; use LORA, or no adapter."


def _of_train(recipe: Recipe) -> Iterator[str]:
    train, kind = recipe.train, recipe.task.kind
    yield from _of_trackers(train.report_to)
    if train.head_learning_rate is not None and kind in WITHOUT_HEAD:
        yield f"train.head_learning_rate is of a new head, and task.kind {kind} has none."
    if train.seeds is not None and recipe.publish is not None and recipe.publish.to is not None:
        yield "train.seeds makes several runs, and publish.to takes one: leave it out, and finetune publish the one."
    held = recipe.data.validation is not None or recipe.data.test is not None
    if train.seeds is not None and not held and kind not in OWN_SCORES:
        yield "train.seeds: there are no rows to score: give data.validation or data.test."
    if recipe.data.validation is None:
        from finetune.training.options import fitted_to

        try:
            fitted_to(train, has_validation=False)
        except UserError as error:
            yield str(error)


def _of_privacy(recipe: Recipe) -> Iterator[str]:
    from finetune.task import Task

    task, train, data = recipe.task, recipe.train, recipe.data
    assert train.dp is not None
    if train.dp.epsilon is None and train.dp.noise_multiplier is None:
        yield "train.dp needs epsilon or noise_multiplier, one of the two."
    if train.dp.epsilon is not None and train.dp.noise_multiplier is not None:
        yield "train.dp has epsilon and noise_multiplier, and each of them settles the noise; leave one of them out."
    if "max_grad_norm" not in train.automatic:
        yield "train.max_grad_norm: with train.dp say train.dp.max_grad_norm, which the gradient of each row is cut to."
    if find_spec("opacus") is None:
        yield "train.dp keeps its account with Opacus, which is not installed: pip install opacus, or the extra dp."
    if task.trainer != Task.trainer:
        yield f"train.dp cuts the gradient of each row, and task.kind {task.kind} has none of a single row."
    wrong = {
        "task.pack": (getattr(task, "pack", False), "puts several rows into an input; set it to false"),
        "task.next_sentence": (getattr(task, "next_sentence", False), "puts sentences of other rows into an input"),
        "task.distill": (getattr(task, "distill", None), "has a teacher that may tell of the rows"),
        "task.class_weights": (getattr(task, "class_weights", None), "is counted from the rows"),
        "data.streaming": (data.streaming, "does not know how many rows there are"),
        "data.augment": (data.augment, "makes several rows of one"),
        "model.config": (recipe.model.path is None, "starts from scratch, with a tokenizer that is made of the rows"),
        "train.rdrop_alpha": (train.rdrop_alpha, "is not offered with it"),
        "train.adversarial": (train.adversarial, "is not offered with it"),
        "train.nan_budget": (train.nan_budget, "leaves steps out for what single rows do"),
        "train.fp16": (train.fp16, "scales gradients, which are to be cut; use bf16"),
        "train.train_sampling_strategy": (
            train.train_sampling_strategy != "random", "deals rows by something else than chance"
        ),
    }  # fmt: skip
    longer = {name.removeprefix("train.") for name in train.allow_change or ()} & {"num_train_epochs", "max_steps"}
    if longer and train.dp.epsilon is not None:
        yield (
            f"train.dp.epsilon and train.allow_change {min(longer)} do not go together: the noise of the steps so far "
            "was made for another number of them; say noise_multiplier from the start."
        )
    for option, (given, why) in wrong.items():
        if given:
            yield f"train.dp and {option} do not go together: it {why}."


def _of_evaluate(recipe: Recipe) -> Iterator[str]:
    for name in ("extractor", "inception"):
        if getattr(recipe.evaluate, name) and not recipe.task.generates_images():
            yield f"evaluate.{name} compares generated images, and task.kind {recipe.task.kind} generates none."


def _of_novelty(recipe: Recipe) -> Iterator[str]:
    from finetune.task import Task

    options = recipe.evaluate
    named = "outliers" if options.outliers is not None else "novelty" if options.novelty is not None else None
    if named is None:
        return
    if type(recipe.task).embed is Task.embed:
        yield f"evaluate.{named} is of a classifier, and task.kind is {recipe.task.kind}."
    if recipe.data.streaming:
        yield f"evaluate.{named} needs the training rows at once, and data.streaming is on."
    if options.outliers is not None and recipe.data.test is None and recipe.data.validation is None:
        yield "evaluate.outliers are held against rows that were not trained on; name data.test or data.validation."
    if options.outliers == []:
        yield "evaluate.outliers is an empty list; name a file, or leave it out."


def _of_trackers(names: str | list[str] | None) -> Iterator[str]:
    from transformers.integrations import integration_utils as trackers

    there = trackers.get_available_reporting_integrations()
    for name in [names] if isinstance(names, str) else names or []:
        if name in trackers.INTEGRATION_TO_CALLBACK and name not in there:
            yield f"train.report_to: {name} is not installed; pip install {name}, or leave it out."


def _kind(adapter: Any) -> str | None:
    """Return the adapter's peft_type as a recipe spells it."""
    kind = getattr(adapter, "peft_type", None)
    return None if kind is None else str(getattr(kind, "value", kind))
