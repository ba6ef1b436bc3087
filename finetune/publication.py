"""A run goes to the Hub: checked before a step is trained, pushed in one commit, and held against itself there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import CheckFailed, EnvironmentFailed, UserError
from finetune.exporting.companion import graphs_of, refuse_unfit
from finetune.publishing.bases import find_base
from finetune.publishing.card import Place, render
from finetune.publishing.files import Upload, uploads
from finetune.publishing.hub import check_repository, connect, full_name, push, set_tag
from finetune.publishing.leaks import needles, refuse_leaks
from finetune.publishing.options import PublishOptions
from finetune.publishing.patience import patiently
from finetune.publishing.scrubbing import in_short

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from finetune.publishing.bases import Base
    from finetune.recipe import Recipe


@dataclass(frozen=True)
class Publication:
    """What was published, or would be."""

    repository: str
    revision: str
    files: dict[str, int]  # bytes by name
    left: list[str]  # names of the run's files that stay here
    base: dict[str, str | None] | None
    commit: str | None = None  # None: nothing was uploaded
    tag: str | None = None
    check: dict[str, Any] | None = None  # what came of loading it elsewhere: see finetune.published


def preflight(recipe: Recipe, create: bool = True) -> Recipe:
    """See that a recipe's run could be published, before anything is trained; return the recipe with the base's commit.

    Asked of the Hub: whether the token is valid and may write, whether the repository is there or can be made (`create`
    makes it, empty and private unless `publish.private` is false), what commit the base has, and whether the card is
    in order, as far as it can be written by now.

    Raises:
        UserError: something of this is not so; EnvironmentFailed: the Hub cannot be reached.
    """
    publish = recipe.publish
    if publish is None or publish.to is None:
        return recipe
    _check_named(recipe, publish)
    api = connect()
    repo = full_name(api, publish.to)
    base = _base(recipe, publish, None, api)
    if publish.onnx is not None:
        refuse_unfit(recipe.task.kind)
    with TemporaryDirectory() as nothing:
        _card(Path(nothing), recipe, _place(repo, publish, base))
    check_repository(api, repo, publish.private, create)
    if base is not None and base.id is not None and publish.base_model is not None:
        publish = replace(publish, base_revision=base.commit)  # what the name means now, and not in ten hours
    print(f"Publishing to {repo}: the token may write, the repository and the card are in order.", flush=True)
    return replace(recipe, publish=replace(publish, to=repo))


def publish_trained(run: Path, recipe: Recipe) -> None:
    """Publish what was just trained; what the Hub or the network refuses is said in a line, and the run stays whole.

    Raises:
        CheckFailed: it is published, and answers otherwise than the run.
    """
    if recipe.publish is None or recipe.publish.to is None:
        return
    try:
        made = _publish(run, recipe, dry_run=False)
        print(f"Published: {made.repository} at {made.commit}; {(made.check or {})['said']}.", flush=True)
    except (UserError, EnvironmentFailed) as error:
        print(f"Not published: {error} The run is whole; `finetune publish {run}` publishes it later.", flush=True)


def publish(
    run: Path, to: str | None = None, dry_run: bool = False, overrides: Mapping[str, Any] | None = None
) -> Publication:
    """Publish a finished run, or finish a publication that was cut short, and return what was published.

    Args:
        run: the folder of a finished run.
        to: the repository, USER/NAME; that of the recipe's `publish` section when left out.
        dry_run: change nothing on the Hub; say which files would go up.
        overrides: of the recipe: `{"publish.license": "mit"}`.

    Raises:
        UserError: the run, the token, the repository, the base or a file is not right; nothing was uploaded.
        EnvironmentFailed: the Hub cannot be reached, or did not take it `publish.attempts` times.
        CheckFailed: what was published answers otherwise than the run.
    """
    from finetune.recipe import Recipe

    artefact.open_run(run)
    given = {**(overrides or {}), **({"publish.to": to} if to is not None else {})}
    return _publish(run, Recipe.read(run / artefact.RECIPE, given), dry_run)


def _publish(run: Path, recipe: Recipe, dry_run: bool) -> Publication:
    publish = recipe.publish
    if publish is None or publish.to is None:
        raise UserError(f"publish.to is missing; say where: finetune publish {run} --to USER/NAME")
    _check_named(recipe, publish)
    if not artefact.read_json(run / artefact.VERDICT)["same"]:
        raise CheckFailed(f"{run} did not come back as it was trained ({artefact.VERDICT}); it is not published.")
    api = connect()
    repo = full_name(api, publish.to)
    base = _base(recipe, publish, run, api)
    graphs = None if publish.onnx is None else graphs_of(run, publish.onnx)
    place = replace(_place(repo, publish, base), graphs=graphs)
    files = uploads(run, recipe.to_dict(), base, _card(run, recipe, place), publish.share_examples, graphs)
    refuse_leaks(files, needles(_folders(run, recipe), repo))
    check_repository(api, repo, publish.private, create=not dry_run)
    made = Publication(
        repo,
        publish.revision,
        {each.path: each.size for each in files},
        _left(run, files),
        asdict(base) if base else None,
    )
    if dry_run:
        return made
    commit = push(api, repo, files, publish, f"Publish {recipe.task.kind} with finetune")
    made = replace(made, commit=commit)
    _note(run, made)
    print(f"{repo}: commit {commit[:12]} on {publish.revision}; loading it elsewhere …", flush=True)
    return _checked(run, made, commit, publish, api)


def _checked(run: Path, made: Publication, commit: str, publish: PublishOptions, api: HfApi) -> Publication:
    """Hold what was published against the run, in a fresh process with an empty cache; then set the tag."""
    from finetune.published import check_published

    found = check_published(run, made.repository, commit, sum(made.files.values()))
    made = replace(made, check=found)
    _note(run, made)
    if not found["same"]:
        raise CheckFailed(
            f"{made.repository}: commit {commit[:12]} is published and answers otherwise than {run}: {found['said']}."
        )
    if publish.tag is not None:
        set_tag(api, made.repository, publish.tag, commit, publish.attempts)
        made = replace(made, tag=publish.tag)
        _note(run, made)
    return made


def _note(run: Path, made: Publication) -> None:
    artefact.write_json(run / artefact.PUBLICATION, asdict(made))


def _check_named(recipe: Recipe, publish: PublishOptions) -> None:
    """See that what nobody can guess is said."""
    if publish.license is None:
        raise UserError("publish.license is missing: say apache-2.0, mit, cc-by-4.0 …, one that base and data allow.")
    if recipe.task.columns().texts and not publish.languages:
        raise UserError("publish.language is missing: say which language the texts are in, such as en.")


def _base(recipe: Recipe, publish: PublishOptions, run: Path | None, api: HfApi) -> Base | None:
    adapter = recipe.adapter is not None and getattr(recipe.adapter, "peft_type", None) != "head"
    trained_on = None if run is None else artefact.read_json(run / artefact.ENVIRONMENT).get("base_commit")
    return patiently(lambda: find_base(recipe.model, publish, adapter, trained_on, api), "publish.base_model")


def _place(repo: str, publish: PublishOptions, base: Base | None) -> Place:
    branch = publish.revision if publish.revision != "main" else None
    return Place(repo, publish.tag or branch, base, publish)


def _card(run: Path, recipe: Recipe, place: Place) -> str:
    """Return the card, which the Hub has found to be in order."""
    from huggingface_hub import ModelCard

    text = render(run, recipe, place)
    try:
        patiently(ModelCard(text).validate, "publish: the card")
    except ValueError as error:
        raise UserError(f"publish: the Hub refuses the card: {in_short(error, 400)}") from error
    return text


def _folders(run: Path, recipe: Recipe) -> list[str]:
    """Return the folders of this machine that the run has to do with."""
    data = (recipe.data.train, recipe.data.validation, recipe.data.test)
    named = [recipe.model.path, recipe.model.tokenizer, *(each for each in data if isinstance(each, str))]
    local = [Path(each) for each in named if each is not None and Path(each).is_absolute() and Path(each).exists()]
    return [str(run.resolve()), str(Path.cwd()), *(str(each if each.is_dir() else each.parent) for each in local)]


def _left(run: Path, files: list[Upload]) -> list[str]:
    up = {each.path for each in files}
    return sorted({each.name + ("/" if each.is_dir() else "") for each in run.iterdir()} - up - {"discriminator/"})
