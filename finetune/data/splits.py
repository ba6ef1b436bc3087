"""The rows of a run: read, checked, mixed, split, limited and compared, with an account of every step."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as compute

from finetune.data.augmenting import augmented, of_thesaurus
from finetune.data.chunks import Findings, Request
from finetune.data.cleaning import dropped, told
from finetune.data.duplicates import settle_duplicates
from finetune.data.faults import Faults
from finetune.data.files import find_pieces, named_sources
from finetune.data.generated import of_files, settle_generated
from finetune.data.labels import alike_labels, settle_labels
from finetune.data.leakage import find_leaks, settle_leaks
from finetune.data.mixture import mix
from finetune.data.options import AugmentOptions, DataOptions, Holdout, ImageOptions, Source
from finetune.data.reading import Read, join, read_piece, request_for
from finetune.data.splitting import hold_out
from finetune.data.squares import remarked, settle_images
from finetune.data.streaming import stream_note, stream_sources
from finetune.editing.augmenting import Rewriter
from finetune.errors import UserError
from finetune.task import Columns


@dataclass
class Splits:
    """The rows of each split, and how they came to be."""

    rows: dict[str, datasets.Dataset] = field(default_factory=dict)  # row_id, the task's columns; splits that exist
    stream: datasets.IterableDataset | None = None  # train, when streaming
    ledger: list[dict[str, Any]] = field(default_factory=list)  # {"split", "step", "before", "after"}, rows
    notes: list[str] = field(default_factory=list)  # sentences to print
    fingerprints: dict[str, dict[str, Any]] = field(default_factory=dict)  # file: {"sha256", "bytes", "rows"}
    image: ImageOptions | None = None  # data.image, with the size and the channels that were read off the images


def load_splits(
    options: DataOptions,
    columns: Columns,
    wanted: Sequence[str] = ("train", "validation", "test"),
    rewriters: Mapping[str, Rewriter] | None = None,
) -> Splits:
    """Return the wanted splits that the options name; those that others depend on are read but not returned.

    Args:
        options: of the recipe.
        columns: that the task reads.
        wanted: names of splits.
        rewriters: the operations of `options.augment` that need a model.

    Raises:
        UserError: files are missing or malformed, rows are wrong, splits leak: up to 20 mistakes, in one line.
        EnvironmentFailed: a file may not be read, or the Hub cannot be reached.
    """
    return Loading(options, columns, rewriters or {}).load(tuple(wanted))


@dataclass
class Loading:
    """The state of one load."""

    options: DataOptions
    columns: Columns
    rewriters: Mapping[str, Rewriter] = field(default_factory=dict)
    findings: Findings = field(default_factory=lambda: Findings(Faults()))
    reads: dict[str, list[list[Read]]] = field(default_factory=dict)  # split: source: piece
    tables: dict[str, pa.Table] = field(default_factory=dict)
    result: Splits = field(default_factory=Splits)

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns whose equality makes two rows equal."""
        return self.columns.texts or ((self.columns.image,) if self.columns.image else ())

    def load(self, wanted: tuple[str, ...]) -> Splits:
        """Take every step in its order."""
        options, held = self.options, isinstance(self.options.validation, Holdout)
        if options.streaming and self.columns.image is not None:
            raise UserError("data.streaming: images are read whole; leave it out")
        if options.image is not None and self.columns.image is None:
            raise UserError(f"data.image: the task reads no images, but {', '.join(self.columns.texts)}; leave it out")
        given = {"train": options.train, "validation": None if held else options.validation, "test": options.test}
        if options.train is None and ("train" in wanted or (held and "validation" in wanted)):
            raise UserError("data.train is missing; name a file, a glob, a folder or a Hub id")
        needed = {*wanted, *(("train",) if held and "validation" in wanted else ())}
        sources = {
            name: named_sources(source, name) for name, source in given.items() if source is not None and name in needed
        }
        requests = {name: self.requests(name, each) for name, each in sources.items()}
        streamed = requests.pop("train", None) if options.streaming else None
        self.read(requests)
        if streamed is not None:
            self.stream(streamed, sources["train"])
        self.merge(sources)
        if isinstance(options.validation, Holdout) and "train" in self.tables:
            self.split(options.validation)
        for name in self.tables:
            self.limit(name)
        self.compare()
        return self.finish(wanted)

    def requests(self, split: str, sources: list[Source]) -> list[list[Request]]:
        """Return what is read for a split: for each source, its pieces. No file is named twice."""
        group = self.options.validation.group if isinstance(self.options.validation, Holdout) else None
        pieces = [find_pieces(source, split, self.options, self.columns.image is not None) for source in sources]
        seen: set[str] = set()
        for piece in (piece for source in pieces for piece in source):
            if piece.place in seen:
                raise UserError(f"data.{split}: {piece.place} is named twice; name it once")
            seen.add(piece.place)
        group = group if split == "train" else None
        return [[request_for(piece, self.options, self.columns, group) for piece in source] for source in pieces]

    def read(self, requests: dict[str, list[list[Request]]]) -> None:
        """Read every piece, and settle the type of the labels over all of them."""
        self.reads = {
            name: [[read_piece(request, self.findings) for request in source] for source in each]
            for name, each in requests.items()
        }
        reads = [read for each in self.reads.values() for source in each for read in source]
        if self.columns.label is not None:
            settle_labels(reads, self.columns.label, self.findings.faults)
        self.findings.faults.raise_any()
        if self.columns.image is not None:
            given = self.options.image or ImageOptions()
            self.result.image, notes = settle_images(reads, self.columns.image, given)
            self.findings.notes += [*remarked(self.findings), *notes]
            refuse_one(self.reads.get("train", []))
            self.result.notes += settle_generated(self.reads, self.findings.facts, self.options)
        if not self.options.streaming:  # a stream has names
            keep_class_order(reads, self.columns.label)
        self.result.notes += self.findings.notes
        self.result.fingerprints = self.findings.facts

    def stream(self, requests: list[list[Request]], sources: list[Source]) -> None:
        """Open the training rows as a stream. Their files are too large to be read for a fingerprint."""
        reads = [read for each in self.reads.values() for source in each for read in source]
        self.result.stream = stream_sources(requests, sources, self.options, reads)
        self.result.notes.append(stream_note(self.options))
        paths = {Path(request.piece.path) for source in requests for request in source}
        sizes = {str(path): {"bytes": path.stat().st_size} for path in sorted(paths) if path.is_file()}
        self.result.fingerprints.update(sizes)

    def merge(self, sources: dict[str, list[Source]]) -> None:
        """Make one table a split: join or mix its sources, and look at duplicates."""
        for name, each in self.reads.items():
            tables = [join([read.table for read in source]) for source in each]
            read, kept = sum(read.rows for source in each for read in source), sum(map(len, tables))
            made = sum(read.rows for source in each for read in source if read.piece.place in self.findings.generated)
            self.note(name, "read", read - made, read - made)
            if made:
                self.note(name, "generated rows added", read - made, read)
            filtered = dropped(self.findings.cleaned, name)
            left = kept + sum(count for _, count in filtered)
            if left < read:
                self.note(name, "empty texts dropped", read, left)
            for step, count in filtered:
                self.note(name, f"clean: {step}", left, left - count)
                left -= count
            self.result.notes += told(self.findings.cleaned, name)
            if filtered and not kept:
                raise UserError(f"data.clean: no row of {name} is left; {filtered[-1][0]} dropped the last of them.")
            table, note = mix(tables, sources[name], self.options.seed)
            if note:
                self.note(name, "mixed by weight", kept, len(table))
            if self.columns.label in table.column_names:
                self.result.notes += alike_labels(table.column(self.columns.label))
            self.result.notes += [note] if note else []
            before, policy = len(table), self.options.duplicates
            target = self.columns.target  # a text may have several answers: a copy has the same one
            parts = (*self.compared, *([target] if target else []))
            table, notes = settle_duplicates(table, parts, self.columns.label, name, policy)
            if len(table) < before:
                self.note(name, "duplicates dropped", before, len(table))
            self.result.notes += notes
            self.tables[name] = table

    def split(self, holdout: Holdout) -> None:
        """Cut validation out of train."""
        options, whole = self.options, self.tables["train"]
        threshold = None if options.leakage == "off" or self.columns.image else options.near_duplicates
        made = of_files(whole, list(self.findings.generated))  # a model's samples stay on the side of training
        real = whole.filter(compute.invert(made))
        train, validation, notes = hold_out(real, holdout, self.compared, self.columns.label, options.seed, threshold)
        train = join([train, whole.filter(made)])
        self.note("train", "held out for validation", len(whole), len(train))
        self.note("validation", "held out of train", len(whole), len(validation))
        self.result.notes += notes
        self.tables = {**self.tables, "train": train, "validation": validation}

    def limit(self, name: str) -> None:
        """Keep the first rows of a seeded shuffle, in the order of the file."""
        most, table = getattr(self.options, f"max_{name}_rows"), self.tables[name]
        if most is not None and most < len(table):
            self.tables[name] = table.take(sorted(random.Random(self.options.seed).sample(range(len(table)), most)))
            self.note(name, f"drawn at random (max_{name}_rows)", len(table), most)

    def compare(self) -> None:
        """Look for rows that two splits share."""
        if self.options.leakage == "off" or len(self.tables) < 2:
            return
        leaks = find_leaks(self.tables, self.compared, self.columns.label, self.options.near_duplicates)
        self.result.notes += settle_leaks(leaks, self.options)

    def finish(self, wanted: tuple[str, ...]) -> Splits:
        """Return the wanted splits as data sets; the training rows with their copies, after all comparisons."""
        if self.options.augment is not None and "train" in self.tables and "train" in wanted:
            self.augment(self.options.augment)
        rows = {name: datasets.Dataset(table) for name, table in self.tables.items() if name in wanted}
        return replace(self.result, rows=rows)

    def augment(self, options: AugmentOptions) -> None:
        """Put copies with other words beside the training rows."""
        before, seed = self.tables["train"], self.options.seed
        held = [table for name, table in self.tables.items() if name != "train"]
        self.tables["train"], note = augmented(before, self.columns.texts, options, seed, self.rewriters, held)
        self.note("train", "augmented", len(before), len(self.tables["train"]))
        self.result.notes.append(note)
        for rewriter in self.rewriters.values():
            self.result.fingerprints.update(rewriter.marks)
        if options.thesaurus is not None:
            self.result.fingerprints[options.thesaurus] = of_thesaurus(options.thesaurus)

    def note(self, split: str, step: str, before: int, after: int) -> None:
        """Write a line of the ledger."""
        self.result.ledger.append({"split": split, "step": step, "before": before, "after": after})


def refuse_one(train: list[list[Read]]) -> None:
    """Raise UserError where the training rows are one image."""
    tables = [read.table for source in train for read in source if read.table.num_rows]
    if sum(map(len, tables)) == 1:
        raise UserError(
            f"{tables[0].column('row_id')[0]}: is the only image of data.train; nothing is learned from one"
        )


def keep_class_order(reads: list[Read], label: str | None) -> None:
    """Make the label a ClassLabel again when every piece had the same one, so that its order of names is kept."""
    orders = {tuple(read.classes or ()) for read in reads}
    if label is None or len(orders) != 1 or orders == {()}:
        return
    names = orders.pop()
    number = {name: at for at, name in enumerate(names)}
    for read in reads:
        numbers = pa.array([number[value] for value in read.table.column(label).to_pylist()], pa.int64())
        table = read.table.set_column(read.table.column_names.index(label), label, numbers)
        features = datasets.Features(datasets.Dataset(table).features)
        features[label] = datasets.ClassLabel(names=list(names))
        read.table = table.cast(features.arrow_schema)


def read_rows(path: str, options: DataOptions, columns: Columns) -> datasets.Dataset:
    """Return the checked rows of one file, to be predicted; with labels if every row has one.

    Raises:
        UserError: the file is missing or malformed, or a text is empty.
    """
    optional = frozenset(() if columns.label is None else (columns.label,))
    findings, reads = Findings(Faults()), []
    for piece in find_pieces(Source(path=path, revision=options.revision), "test", options, columns.image is not None):
        reads.append(read_piece(request_for(piece, options, columns, optional=optional, drops=False), findings))
    if columns.label is not None:
        settle_labels(reads, columns.label, findings.faults)
    findings.faults.raise_any()
    if columns.image is not None:
        settle_images(reads, columns.image, options.image or ImageOptions())
    table = join([read.table for read in reads])
    if columns.label in table.column_names and table.column(columns.label).null_count:
        table = table.drop_columns([columns.label])
    return datasets.Dataset(table)
