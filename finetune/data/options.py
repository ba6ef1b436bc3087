"""The `data` section of a recipe. Light: a recipe is read and refused without numpy, Arrow or datasets."""

from __future__ import annotations

import codecs
import encodings.aliases
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.editing import plan
from finetune.editing.augmenting import BY_MODELS, NEED_SYNONYMS, OPERATIONS
from finetune.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Source:
    """One file, glob, `save_to_disk` folder or Hub data set, where a bare path does not say enough."""

    path: str
    split: str | None = None  # of a folder or Hub data set; default: the split that it is used for
    name: str | None = None  # the configuration of a Hub data set
    revision: str | None = None  # of a Hub data set; default: data.revision
    weight: float | None = None  # share of the mixture, any positive scale; all sources of a list have one, or none has
    columns: dict[str, str] = field(default_factory=dict)  # our name: the file's name; before data.columns

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise UserError(f"data: weight of {self.path} is {self.weight}; a weight is a positive number")


@dataclass(frozen=True)
class Holdout:
    """Rows of `train` that are kept for validation. Equal texts always land on the same side."""

    fraction: float  # share of the rows
    stratify: bool = False  # keep the share of each label
    group: str | None = None  # column; rows with one value stay together (a user, a document, a day)

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise UserError(f"data.validation.fraction is {self.fraction}; it must lie between 0 and 1, e.g. 0.1")


@dataclass(frozen=True)
class ImageOptions:
    """How images become squares of one size. What is left out is read off the images."""

    size: int | None = None  # pixels a side, 8 to 256; left out: the images' own, if all are square and equal
    channels: Literal[1, 3] | None = None  # 1 grey, 3 colour; left out: colour if any image has colour
    fit: Literal["pad", "crop", "stretch"] = "pad"  # makes a square of an image that is none
    background: str = "white"  # behind transparent pixels, and what `pad` adds; a name, or "#rrggbb"

    def __post_init__(self) -> None:
        from PIL import ImageColor

        if self.size is not None and not SIZES[0] <= self.size <= SIZES[1]:
            raise UserError(f"data.image.size is {self.size}; it must lie between {SIZES[0]} and {SIZES[1]} pixels")
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            near = did_you_mean(self.background, ImageColor.colormap)
            raise UserError(
                f'data.image.background is {self.background}; give the name of a colour or "#rrggbb".{near}'
            ) from None


@dataclass(frozen=True)
class AugmentOptions:
    """Copies of training rows, each with one change: Wei & Zou 2019 (arXiv:1901.11196). Never of held-out rows."""

    copies: int = 1  # of each row
    delete: float = 0.0  # share of the words that are left out
    swap: float = 0.0  # share of the words that change places with another
    replace: float = 0.0  # share of the words that become a synonym
    insert: float = 0.0  # share of the words of which a synonym is added somewhere
    # Of synonyms, for replace and insert: a file whose lines hold words that mean the same, a folder with WordNet's
    # database, or `wordnet`, nltk's own (extra `wordnet`).
    thesaurus: str | None = None
    contextual: float = 0.0  # share of the words in whose place a masked language model writes others; sees no label
    masked_lm: str | None = None  # that model: a run, a folder or a Hub id; default: model.path
    # Two seq2seq models, runs, folders or Hub ids: into another language and back.
    translate: list[str] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.copies <= 100:
            raise UserError(f"data.augment.copies is {self.copies}; it must lie between 1 and 100")
        for name in (*OPERATIONS, "contextual"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"data.augment.{name} is {getattr(self, name)}; it is a share of the words, 0.1 say")
        needing = [name for name in NEED_SYNONYMS if getattr(self, name)]
        if needing and self.thesaurus is None:
            raise UserError(f"data.augment.thesaurus is missing: {needing[0]} needs a file of synonyms, or wordnet")
        if self.thesaurus is not None and not needing:
            raise UserError("data.augment.thesaurus is for replace and insert, and both are 0; leave it out")
        if self.masked_lm is not None and not self.contextual:
            raise UserError("data.augment.masked_lm is for contextual, and that is 0; leave it out")
        if self.translate is not None and len(self.translate) != 2:
            raise UserError(
                f"data.augment.translate names {len(self.translate)}; give two models, [THERE, BACK]: into another "
                "language, and back"
            )

    @property
    def shares(self) -> dict[str, float]:
        """The share of the words that each operation is done to; 1 for that which writes the whole text anew."""
        given = {name: getattr(self, name) for name in (*OPERATIONS, "contextual")}
        return {**given, BY_MODELS[1]: float(self.translate is not None)}


SIZES = (8, 256)  # the least and the greatest side of an image, pixels


@dataclass(frozen=True)
class DataOptions:
    """Where rows come from, and what is checked before anything is trained on them."""

    # A file, a glob, a folder of images or of `save_to_disk`, or a Hub id; several are joined, or mixed where sources
    # have weights.
    train: str | Source | list[str] | list[Source] | None = None
    validation: str | Source | Holdout | list[str] | list[Source] | None = None
    test: str | Source | list[str] | list[Source] | None = None
    columns: dict[str, str] = field(default_factory=dict)  # our name: the file's name
    revision: str | None = None  # of Hub data sets
    image: ImageOptions | None = None  # of tasks on images
    sample_by: Literal["line", "paragraph", "document"] = "document"  # plain text files only
    encoding: str = "utf-8"
    empty_texts: Literal["error", "drop"] = "error"  # rows with nothing but white space in a text
    # What is done to texts, in the list's order: unicode, control, html, whitespace, scrub, presidio, stop_words change
    # them; length, block, language drop rows. Each a name, or a name with its options: {scrub: [email, phone]}.
    clean: list[str | dict[str, Any]] = field(default_factory=list)
    augment: AugmentOptions | None = None  # copies of training rows with other words, for classifiers
    # The first N rows after a shuffle with `seed`.
    max_train_rows: int | None = None
    max_validation_rows: int | None = None
    max_test_rows: int | None = None
    seed: int = 13
    on_long: Literal["error", "truncate", "drop", "window"] = "truncate"  # what happens past the length limit
    # Rows of a split with equal text, case and white space aside. `drop` keeps the first of those with one label.
    duplicates: Literal["warn", "error", "drop", "off"] = "warn"
    # Rows of validation or test that also stand in a split before it. Well-known sets have a few (BANKING77: 7 of its
    # 3,080 test rows stand in train, 9 more nearly), which move a score by no more than their share. So `error` refuses
    # above a share, and below it says what it found.
    leakage: Literal["error", "warn", "off"] = "error"
    leakage_exact: float = 0.01  # share of a split's rows, equal case and white space aside, that is tolerated
    leakage_near: float = 0.1  # the same for equal and nearly equal rows together; templates and retweets are common
    near_duplicates: float = 0.9  # Jaccard similarity of sets of 5 characters from which texts are nearly equal
    streaming: bool = False  # train is read row by row while it is trained on
    shuffle_buffer: int = 10_000  # rows, when streaming
    cache_dir: str | None = None  # where encoded inputs are kept for the next run; default: finetune/ in HF_HOME

    def __post_init__(self) -> None:
        plan(self.clean)  # refuses what is no step
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            near = did_you_mean(self.encoding, ["utf-8", *encodings.aliases.aliases])
            raise UserError(
                f"data.encoding is {self.encoding}, which is no encoding that Python knows.{near}"
            ) from None
        shares = {"near_duplicates": 0.3, "leakage_exact": 0.0, "leakage_near": 0.0}  # and their least values
        for name, least in shares.items():
            if not least <= getattr(self, name) <= 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; it must lie between {least:g} and 1")
        for name in ("max_train_rows", "max_validation_rows", "max_test_rows", "shuffle_buffer"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; it must be at least 1")
        if self.augment is not None and not any(self.augment.shares.values()):  # it itself is made empty on the way
            names = ", ".join((*OPERATIONS, BY_MODELS[0]))
            raise UserError(f"data.augment: nothing is done; set one of {names} to a share, 0.1 say, or translate")
        if self.streaming:
            self._refuse_what_needs_every_row()

    def _refuse_what_needs_every_row(self) -> None:
        if isinstance(self.validation, Holdout):
            raise UserError("data.validation.fraction: a streamed train cannot be split; name a validation file")
        if self.augment is not None:
            raise UserError("data.augment needs every row at once, and data.streaming is on")
        if self.duplicates in ("error", "drop"):
            raise UserError(f"data.duplicates: {self.duplicates} needs every row at once and data.streaming is on")
