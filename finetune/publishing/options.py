"""The recipe's `publish` section. Imports nothing heavy: a recipe is read and refused without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from finetune.errors import UserError

REPOSITORY = r"[\w.-]{1,96}(/[\w.-]{1,96})?"
NOT_ON_THE_HUB = "none"


@dataclass(frozen=True)
class PublishOptions:
    """Where on the Hub a run goes, and what its card says; the token is that of HF_TOKEN or `hf auth login`."""

    to: str | None = (
        None  # the repository, USER/NAME or ORGANISATION/NAME; left out: `finetune publish RUN --to` says it
    )
    private: bool = True  # the repository is seen by its owners alone
    revision: str = "main"  # the branch that gets the commit
    tag: str | None = None  # set on the commit once it answers as the run did
    base_model: str | None = None  # Hub id of the base where model.path is a folder or a package; none: it has no id
    base_revision: str | None = None  # of the base: a commit, tag or branch
    license: str | None = None  # of the model, as the Hub spells it: apache-2.0, mit, cc-by-4.0, other …
    license_name: str | None = None  # of a license that is called other
    language: str | list[str] | None = None  # of the texts, ISO 639: en, or a list
    datasets: list[str] | None = None  # Hub ids of the data, where it has some
    data_license: str | None = None  # of the data
    intended_use: str | None = None  # a sentence or more for the card
    limits: str | None = None  # what it must not be used for, and where it fails
    share_examples: bool = False  # rows of the data may be shown: in the card, and in pictures beside the model's own
    onnx: Literal["fp32", "int8"] | None = None  # ONNX graphs go up too, in onnx/: in fp32, or in both
    attempts: int = 5  # of the upload, with growing pauses between them

    def __post_init__(self) -> None:
        for name in ("to", "base_model"):
            value = getattr(self, name)
            if value is not None and (not re.fullmatch(REPOSITORY, value) or ".." in value or "--" in value):
                raise UserError(f"publish.{name} is {value!r}; a repository of the Hub is called USER/NAME.")
        if self.attempts < 1:
            raise UserError(f"publish.attempts is {self.attempts}; give 1 or more.")
        if self.license == "other" and self.license_name is None:
            raise UserError("publish.license_name is missing: a license that is called other needs a name.")

    @property
    def languages(self) -> list[str]:
        """Return the languages as a list."""
        return [self.language] if isinstance(self.language, str) else list(self.language or ())
