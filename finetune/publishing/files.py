"""What of a run goes up: a list of names and kinds. What is not on it stays, whatever it is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from finetune import artefact
from finetune.errors import UserError
from finetune.publishing.bases import Base
from finetune.publishing.scrubbing import without_paths

CARD = "README.md"
# By name, and each held against its kind before it goes: a pickle that is called model.safetensors does not.
WEIGHTS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.raw.safetensors",
    "adapter_model.safetensors",
    "discriminator/model.safetensors",
)
PLAIN = (  # JSON, rewritten without this machine's paths
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "model.safetensors.index.json",
    "discriminator/config.json",
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    "encoder_tokenizer/tokenizer_config.json",
    *(artefact.SCORES, artefact.LABELS, artefact.ENVIRONMENT),
)
VOCABULARIES = (  # of tokenizers, as they are
    *("tokenizer.json", "vocab.json", "encoder_tokenizer/tokenizer.json"),
    *("vocab.txt", "merges.txt", "chat_template.jinja", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
DRAWN = ("samples/after.png", "samples/before.png")  # by the model, from noise alone
GRAPHS = ("onnx/*.onnx", "onnx/*.onnx.data", "onnx/run.py", "onnx/tokenizer.json", "onnx/export.json")
SHOWS_ROWS = ("samples/*.png",)  # beside rows of the data, or made of them


@dataclass(frozen=True)
class Upload:
    """A file as it goes up."""

    path: str  # in the repository
    source: Path | bytes
    written_here: bool = False  # by this project for people, so that names in it are told apart from a vocabulary

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the bytes, so many at a time."""
        with io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb") as stream:
            while block := stream.read(size):
                yield block


def uploads(
    run: Path, recipe: dict[str, Any], base: Base | None, card: str, share_examples: bool, graphs: Path | None = None
) -> list[Upload]:
    """Return every file of a run that is published, in the order of their names.

    Args:
        run: the folder of a finished run.
        recipe: of the run, as plain values; published without paths, texts of the data and the publish section.
        base: on the Hub; the adapter and the recipe are made to name it.
        card: README.md.
        share_examples: pictures with rows of the data go too.
        graphs: the folder of an export to ONNX, which goes into onnx/.

    Raises:
        UserError: a file is not what its name says.
    """
    found = [
        Upload(CARD, card.encode(), written_here=True),
        Upload(artefact.RECIPE, _yaml(published_recipe(recipe, base, share_examples)), written_here=True),
    ]
    for file in sorted(each for each in run.rglob("*") if each.is_file() and not each.is_symlink()):
        name = file.relative_to(run).as_posix()
        if _listed(name, WEIGHTS):
            _check_safetensors(file)
            found.append(Upload(name, file))
        elif _listed(name, PLAIN):
            found.append(_plain(file, name, base))
        elif _listed(name, VOCABULARIES):
            _check_text(file)
            found.append(Upload(name, file))
        elif _listed(name, DRAWN) or (share_examples and _listed(name, SHOWS_ROWS)):
            _check_picture(file)
            found.append(Upload(name, file))
    found += [] if graphs is None else _graphs(graphs)
    if not any(_listed(each.path, WEIGHTS) for each in found):
        raise UserError(f"{run} holds no weights that can be published: {', '.join(WEIGHTS[:4])}.")
    return sorted(found, key=lambda each: each.path)


def is_ours(path: str) -> bool:
    """Say whether a run publishes a file of this name: one that an earlier publication left, when this one has none."""
    return path in (CARD, artefact.RECIPE) or _listed(path, (*WEIGHTS, *PLAIN, *VOCABULARIES, *SHOWS_ROWS, *GRAPHS))


def published_recipe(recipe: dict[str, Any], base: Base | None, share_examples: bool) -> dict[str, Any]:
    """Return a recipe that names the base on the Hub, and nothing of this machine nor, without consent, of the data."""
    made = without_paths({name: value for name, value in recipe.items() if name != "publish"})
    made["data"].pop("cache_dir", None)
    if not share_examples:
        made["task"].pop("between", None)  # texts of the held-out rows, unless their author wrote them
    if base is not None and made.get("model", {}).get("path"):
        if base.id is not None:
            made["model"] |= {"path": base.id, "revision": base.commit}
        made["model"].pop("tokenizer", None)  # its files stand beside the weights
    return dict(made)


def _graphs(folder: Path) -> list[Upload]:
    found = []
    for file in sorted(each for each in folder.iterdir() if each.is_file() and not each.is_symlink()):
        name = f"onnx/{file.name}"
        if not _listed(name, GRAPHS):
            continue
        if file.suffix == ".onnx":
            _check_graph(file)
        elif file.suffix in (".json", ".py"):
            _check_text(file)
        found.append(Upload(name, file, written_here=file.name in ("run.py", "export.json")))
    return found


def _plain(file: Path, name: str, base: Base | None) -> Upload:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"publish: {file} is not JSON; it was damaged or put there by hand.") from None
    content = without_paths(content)
    if name == "adapter_config.json":
        content |= {"base_model_name_or_path": base.id, "revision": base.commit} if base is not None else {}
    for key in ("_name_or_path", "name_or_path"):
        if isinstance(content, dict):
            content.pop(key, None)
    written = name in (artefact.ENVIRONMENT, artefact.SCORES, artefact.LABELS, "adapter_config.json", "config.json")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=name not in (artefact.SCORES,)) + "\n"
    return Upload(name, text.encode(), written_here=written)


def _listed(name: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a name is one of the list; a star does not reach into a folder."""
    return any(fnmatchcase(name, each) and name.count("/") == each.count("/") for each in patterns)


def _check_safetensors(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as weights:
            weights.keys()
    except (SafetensorError, OSError):
        raise UserError(
            f"publish: {file} is not a safetensors file; it is damaged, or something else by that name."
        ) from None


def _check_graph(file: Path) -> None:
    if not _starts_with(file, b"\x08"):  # protobuf, whose first field is the version of the format
        raise UserError(f"publish: {file} is not an ONNX graph; it is damaged, or something else by that name.")


def _check_text(file: Path) -> None:
    if file.suffix == ".json":
        artefact.read_json(file)
    elif file.suffix == ".model":  # SentencePiece: protobuf whose first field is a list of pieces
        if not _starts_with(file, b"\n"):
            raise UserError(f"publish: {file} is not a SentencePiece model.")
    else:
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"publish: {file} is not text.") from None


def _starts_with(file: Path, signature: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(signature)) == signature


def _check_picture(file: Path) -> None:
    if not _starts_with(file, b"\x89PNG\r\n\x1a\n"):
        raise UserError(f"publish: {file} is not a PNG picture.")


def _yaml(recipe: dict[str, Any]) -> bytes:
    from finetune.recipe_reading import to_yaml

    return to_yaml(recipe).encode()
