"""What packing finds out about one model: its features, how it wants its rows, what it takes, and what it answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from service.errors import PackingError, shorten
from service.manifest import Layout
from service.packing import statistics, trials
from service.packing.sample import Sample, infer_dtype, looks_like_dates
from service.packing.trials import Candidate
from service.runtimes import Facts, RuntimeModule
from service.signature import TEXTS, Dtype, Feature, Label, Output, Signature
from service.table import Column, Table, table_from_columns

FEW_CATEGORIES = 50
PLAIN_ROWS = 1000
"""Among how many rows of the sample the one without gaps is looked for."""
DTYPES_BY_KIND: dict[str, Dtype] = {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}


@dataclass(frozen=True)
class Choices:
    """What the user says where the model and the sample do not."""

    targets: tuple[str, ...] = ()
    separator: str = ","
    dtypes: Mapping[str, Dtype] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    nullable: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    layout: Layout | None = None


class Study:
    """What packing finds out about one model, step by step."""

    def __init__(self, module: RuntimeModule, model: Any, facts: Facts, sample: Sample, choices: Choices) -> None:
        self._module, self._model, self._facts, self._choices = module, model, facts, choices
        self._sample = sample
        self.notes: list[str] = []

    def run(self) -> None:
        """Settle the features, the layout, what the model takes, and its outputs."""
        _check_columns(self._choices, self._sample)
        names = self._feature_names()
        self.candidate = self._settle_layout(names)
        self._settle_missing()
        self._settle_categories()
        self._settle_limits()
        self.table = _table(self._sample, self.candidate.signature)
        self.rows = self._rows()
        self._settle_outputs()

    def _feature_names(self) -> list[str]:
        columns = [n for n in self._sample.columns if n not in self._choices.targets and n not in self._choices.drop]
        wanted = self._facts.names
        if wanted is not None:
            return _named_features(wanted, self._sample, self._choices, self.notes)
        n_features = self._facts.n_features
        if n_features is not None and len(columns) != n_features:
            raise PackingError(
                f"the model was fitted on {n_features} columns without names and the sample has {len(columns)}: "
                f"{shorten(', '.join(columns), 200)}; name the target with --target and others with --drop until "
                f"{n_features} are left, in the order of the training"
            )
        if n_features is None and len(columns) != 1 and not self._facts.layouts:
            raise PackingError(
                "the model does not say how many columns it takes, as text models do; leave the one that it takes, by "
                f"--target and --drop, out of: {shorten(', '.join(columns), 200)}"
            )
        return columns

    def _settle_layout(self, names: list[str]) -> Candidate:
        """Try every layout, and dates both as text and as moments where the user did not say."""
        candidates = [
            Candidate(self._module, self._model, signature, layout)
            for signature in self._signatures(names)
            for layout in ([self._choices.layout] if self._choices.layout else self._layouts(signature))
        ]
        whole = self._sample.whole_rows(names)
        sample = self._sample.rows(whole) if whole else self._sample
        tables = [_table(sample, candidate.signature) for candidate in candidates]
        try:
            return trials.choose(candidates, tables, "--layout, or --dtype COLUMN=datetime-string or COLUMN=datetime")
        except PackingError as error:
            if whole:
                raise
            raise PackingError(
                f"every row of the sample misses a value; give whole rows, or: {error.detail}"
            ) from error

    def _layouts(self, signature: Signature) -> list[Layout]:
        return trials.possible_layouts(self._facts, signature.features)

    def _signatures(self, names: list[str]) -> list[Signature]:
        features = [self._feature(name, index) for index, name in enumerate(names)]
        said = self._choices.dtypes.keys()
        dates = [
            f.dtype == "string" and f.name not in said and looks_like_dates(self._sample.present(f.name))
            for f in features
        ]
        spellings: tuple[Dtype, ...] = ("datetime-string", "datetime") if any(dates) else ("string",)
        missing = {""}.union(*(self._sample.missing_in(name) for name in names))
        return [
            Signature(
                features=tuple(
                    f.model_copy(update={"dtype": spelling}) if date else f
                    for f, date in zip(features, dates, strict=True)
                ),
                outputs=(Output(name="prediction", dtype="float64"),),
                missing=tuple(sorted(missing)),
            )
            for spelling in spellings
        ]

    def _feature(self, name: str, index: int) -> Feature:
        cells = self._sample.present(name)
        inferred = infer_dtype(cells, has_missing=bool(self._sample.missing_in(name)))
        known = self._facts.dtypes[index] if self._facts.dtypes else inferred
        nothing_told = not (self._facts.dtypes or self._facts.names or self._facts.layouts)
        if nothing_told and inferred in ("int64", "bool"):
            known = "float64"  # an array has one type for all its columns
        categories = self._facts.categories.get(name, ())
        as_text = bool(categories) and all(isinstance(value, str) for value in categories)
        dtype = self._choices.dtypes.get(name, "string" if as_text else known)
        if as_text and dtype not in TEXTS:
            raise PackingError(f"the model knows the values of {name!r} as text; say --dtype {name}=string")
        return Feature(name=name, dtype=dtype, nullable=True, required=name not in self._choices.optional)

    def _settle_missing(self) -> None:
        """A feature is nullable if the sample misses it somewhere, or the user says so, and the model takes that."""
        plain = self._plain_row()
        nullable = {}
        for feature in self.candidate.signature.features:
            said = feature.name in self._choices.nullable or feature.name in self._choices.optional
            found = bool(self._sample.missing_in(feature.name))
            takes = (said or found) and trials.takes_missing(self.candidate, plain, feature.name)
            if said and not takes:
                raise PackingError(
                    f"the model takes no missing value in {feature.name!r}; leave out --nullable or --optional"
                )
            nullable[feature.name] = takes
        self._update(lambda f: {"nullable": nullable[f.name]})
        self._drop_rows([name for name, takes in nullable.items() if not takes])

    def _drop_rows(self, names: list[str]) -> None:
        """Leave out the sample's rows that miss what the model cannot miss."""
        gaps = [self._sample.values(f) for f in self.candidate.signature.features if f.name in names]
        keep = [row for row in range(self._sample.n_rows) if all(column[row] is not None for column in gaps)]
        if not keep:
            raise PackingError("every row of the sample misses a value that the model cannot miss; give whole rows")
        if len(keep) < self._sample.n_rows:
            left_out = self._sample.n_rows - len(keep)
            self.notes.append(f"left out {left_out} rows of the sample, which miss a value that the model cannot miss")
            self._sample = self._sample.rows(keep)

    def _settle_categories(self) -> None:
        plain = self._plain_row()
        known = {f.name: self._known_values(f) for f in self.candidate.signature.features}
        closed = {}
        for feature in self.candidate.signature.features:
            probe = feature.model_copy(update={"categories": known[feature.name]})
            numeric = feature.dtype in ("int64", "float64", "float32")
            tried = feature.dtype == "string" or (numeric and known[feature.name] is not None)
            closed[feature.name] = tried and not trials.takes_unseen(self.candidate, plain, probe)
            if closed[feature.name] and not self._is_certain(feature.name):
                raise PackingError(
                    f"the model refuses values of {feature.name!r} that it has not seen, and which it has seen cannot "
                    f"be read from it; list them: --categories {feature.name}=A,B,C"
                )
        self._update(lambda f: {"categories": known[f.name], "closed": closed[f.name]})

    def _is_certain(self, name: str) -> bool:
        return name in self._facts.categories or name in self._choices.categories

    def _known_values(self, feature: Feature) -> tuple[str, ...] | tuple[int, ...] | None:
        if feature.name in self._choices.categories:
            return _said_categories(feature, self._choices.categories[feature.name])
        known = self._facts.categories.get(feature.name)
        wanted: type = str if feature.dtype == "string" else int
        if known is not None and all(type(value) is wanted for value in known):
            return known
        if feature.dtype != "string":
            return None
        cells = self._sample.present(feature.name)
        found = sorted(set(cells))
        return tuple(found) if len(found) <= FEW_CATEGORIES and len(found) < len(cells) / 2 else None

    def _settle_limits(self) -> None:
        plain = self._plain_row()
        limits: dict[str, dict[str, Any]] = {}
        for feature in self.candidate.signature.features:
            numbers = [
                v for v in self._sample.values(feature) if isinstance(v, int | float) and not isinstance(v, bool)
            ]
            facts: dict[str, Any] = {"example": plain[feature.name]}
            if numbers and feature.dtype in ("float64", "float32", "int64"):
                facts |= {"minimum": min(numbers), "maximum": max(numbers)}
            if feature.dtype == "float64" and not feature.closed:
                facts["largest"] = trials.largest_number(self.candidate, plain, feature.name)
            elif feature.dtype == "int64" and not feature.closed:
                facts["largest"] = trials.largest_whole_number(self.candidate, plain, feature.name)
            limits[feature.name] = facts
        self._update(lambda f: limits[f.name])

    def _settle_outputs(self) -> None:
        """Name and type the outputs, ask for probabilities, and measure against the target."""
        try:
            self.predictions = self.candidate.answer(self.table).predictions
        except Exception as error:  # a model may raise anything
            raise PackingError(f"the model cannot predict the sample: {shorten(str(error), 300)}") from error
        classes = self._classes()
        n_outputs = 1 if self.predictions.ndim == 1 else self.predictions.shape[1]
        answers = self.predictions.reshape(len(self.predictions), -1).T
        targets = self._choices.targets
        names = targets if len(targets) == n_outputs else [f"output_{i}" for i in range(n_outputs)]
        if n_outputs == 1 and not targets:
            names = ["prediction"]
        outputs = tuple(
            Output(name=output, dtype=_dtype_of(answers[index]), classes=_labels(classes, index, n_outputs))
            for index, output in enumerate(names)
        )
        signature = self.candidate.signature.model_copy(update={"outputs": outputs})
        self.candidate = replace(self.candidate, signature=signature)
        columns = answers if len(targets) == n_outputs else [self.predictions] * len(targets)
        truths = [
            statistics.target_values(self._sample, target, column)
            for target, column in zip(targets, columns, strict=True)
        ]
        task = "classification" if self._choices.classes else self._facts.task
        self.task = statistics.settle_task(task, targets, truths)
        self.metrics = statistics.measure_quality(self.task, names, truths, self.predictions)

    def _classes(self) -> tuple[tuple[Label, ...], ...] | None:
        named = self._choices.classes
        if not named:
            return trials.class_labels(self.candidate, self.table, self._facts)
        labels = _said_classes(named, self.predictions)
        classes = trials.class_labels(self.candidate, self.table, replace(self._facts, classes=(labels,)))
        if classes is None:
            raise PackingError(f"--classes names {len(named)} labels, and the model answers no such probabilities")
        outputs = (Output(name="prediction", dtype="string", classes=labels),)
        asking = replace(self.candidate, signature=self.candidate.signature.model_copy(update={"outputs": outputs}))
        trials.check_labels(labels, self.predictions, asking.answer(self.table, probabilities=True).probabilities or ())
        return classes

    def _plain_row(self) -> dict[str, Any]:
        """A row of the sample without gaps, or the one with the fewest."""
        rows = self._rows()
        return min(rows[:PLAIN_ROWS], key=lambda row: sum(value is None for value in row.values()))

    def _rows(self) -> list[dict[str, Any]]:
        features = self.candidate.signature.features
        columns = [self._sample.values(feature) for feature in features]
        return [dict(zip(self.candidate.signature.names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _update(self, facts: Callable[[Feature], Mapping[str, Any]]) -> None:
        features = tuple(f.model_copy(update=dict(facts(f))) for f in self.candidate.signature.features)
        signature = self.candidate.signature.model_copy(update={"features": features})
        self.candidate = replace(self.candidate, signature=signature)


def _table(sample: Sample, signature: Signature) -> Table:
    return table_from_columns(signature, {f.name: sample.values(f) for f in signature.features})


def _check_columns(choices: Choices, sample: Sample) -> None:
    said = {
        "--target": choices.targets,
        "--drop": choices.drop,
        "--nullable": choices.nullable,
        "--optional": choices.optional,
        "--dtype": tuple(choices.dtypes),
        "--categories": tuple(choices.categories),
    }
    for flag, names in said.items():
        for name in names:
            if name not in sample.columns:
                raise PackingError(f"{flag} names the column {shorten(name)!r}, {_there_are(name, sample)}")


def _there_are(name: str, sample: Sample) -> str:
    close = difflib.get_close_matches(name, sample.columns, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"which the sample does not have; it has {shorten(', '.join(sample.columns), 200)}{hint}"


def _named_features(wanted: Sequence[str], sample: Sample, choices: Choices, notes: list[str]) -> list[str]:
    for name in wanted:
        renamed = next((column for column in sample.columns if column.replace(" ", "_") == name != column), None)
        if name not in sample.columns and renamed is not None:
            raise PackingError(
                f"the model calls the column {renamed!r} {name!r}, as LightGBM does with spaces; rename it so "
                "in the sample and train again with that name"
            )
        if name not in sample.columns:
            raise PackingError(f"the model was fitted on the column {shorten(name)!r}, {_there_are(name, sample)}")
    unused = [n for n in sample.columns if n not in wanted and n not in choices.targets and n not in choices.drop]
    if unused:
        notes.append(
            f"the model was not fitted on these columns of the sample; passed over: {shorten(', '.join(unused), 200)}"
        )
    return list(wanted)


def _labels(classes: tuple[tuple[Label, ...], ...] | None, index: int, n_outputs: int) -> tuple[Any, ...] | None:
    return classes[index] if classes is not None and len(classes) == n_outputs else None


def _dtype_of(predictions: Column) -> Dtype:
    """Return the type of one output's answers; an array of objects holds text, or one type of Python's own."""
    plain = predictions if predictions.dtype != object else np.array(predictions.tolist())
    return DTYPES_BY_KIND.get(plain.dtype.kind, "string")


def _said_categories(feature: Feature, said: tuple[str, ...]) -> tuple[str, ...] | tuple[int, ...]:
    if feature.dtype == "string":
        return said
    try:
        return tuple(int(value) for value in said)
    except ValueError as error:
        raise PackingError(
            f"--categories {feature.name}: the column holds whole numbers, and one of these is none"
        ) from error


def _said_classes(said: tuple[str, ...], predictions: Column) -> tuple[Label, ...]:
    if predictions.dtype.kind not in "iu":
        return said
    try:
        return tuple(int(label) for label in said)
    except ValueError as error:
        raise PackingError("--classes: the model predicts whole numbers, and one of these labels is none") from error
