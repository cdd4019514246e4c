"""The nouns of a model's interface: what goes in, what comes out, and the schema that people see.

Knows no wire format, no model library and no web framework.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

Dtype = Literal["float64", "float32", "int64", "bool", "string", "datetime", "datetime-string"]
"""What a model gets: `datetime` is a moment, `datetime-string` the text of one."""

TEXTS: tuple[Dtype, ...] = ("string", "datetime-string")
Task = Literal["classification", "regression", "outliers", "clustering", "other"]
Label = bool | int | float | str
Scalar = Label | None
Made = TypeVar("Made")

MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
LARGEST_FLOAT32 = 3.4028234663852886e38


class Noun(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Feature(Noun):
    """One named, typed input of a model."""

    name: str = Field(min_length=1, max_length=256)
    dtype: Dtype
    required: bool = True
    """Whether a row must carry it; an absent optional feature counts as null."""
    nullable: bool = False
    """Whether null (in CSV: an empty cell) is a value that the model takes."""
    categories: tuple[str, ...] | tuple[int, ...] | None = None
    """The values known to the model, where they are few."""
    closed: bool = False
    """Whether the model refuses values that are not among `categories`."""
    minimum: float | None = None
    """Smallest value of the sample; it describes, it does not refuse."""
    maximum: float | None = None
    """Largest value of the sample; it describes, it does not refuse."""
    largest: float | None = None
    """Largest magnitude that the model can compute with, where that is less than the dtype's own."""
    example: Scalar = None

    @model_validator(mode="after")
    def _consistent(self) -> Feature:
        if self.closed and not self.categories:
            raise ValueError("a closed feature needs its categories")
        return self

    @property
    def takes_null(self) -> bool:
        """Whether a row may have null here; an optional feature that is absent counts as null."""
        return self.nullable or not self.required


class Output(Noun):
    """One named output of a model; `classes` are the labels behind its probabilities, in their order."""

    name: str = Field(min_length=1, max_length=256)
    dtype: Dtype
    classes: tuple[Label, ...] | None = None


class Signature(Noun):
    """Named, typed inputs and outputs of a model."""

    features: tuple[Feature, ...] = Field(min_length=1)
    outputs: tuple[Output, ...] = Field(min_length=1)
    missing: tuple[str, ...] = ("",)
    """How the sample spelt a missing value; the same spellings are null in a CSV body."""

    @model_validator(mode="after")
    def _distinct(self) -> Signature:
        if len(set(self.names)) != len(self.names):
            raise ValueError("two features have the same name")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of a row given as a list."""
        return tuple(feature.name for feature in self.features)

    @property
    def multi_output(self) -> bool:
        """Whether a prediction is a list of values rather than one."""
        return len(self.outputs) > 1

    @property
    def has_probabilities(self) -> bool:
        """Whether class probabilities can be asked for."""
        return all(output.classes is not None for output in self.outputs)

    @cached_property
    def _made(self) -> dict[Callable[[Signature], Any], Any]:
        return {}

    def once(self, make: Callable[[Signature], Made]) -> Made:
        """Return what `make` makes of this signature; it is made at the first call and kept."""
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made

    def example(self) -> dict[str, Scalar]:
        """Return one row that the model answers."""
        return {feature.name: feature.example for feature in self.features}


def row_model(signature: Signature) -> type[BaseModel]:
    """Derive the pydantic model of one row; it accepts exactly what the service accepts as a JSON object."""
    fields: dict[str, Any] = {
        f"feature_{index}": (_annotation(feature), _field(feature)) for index, feature in enumerate(signature.features)
    }
    config = ConfigDict(extra="forbid", strict=True, title="Instance")
    return create_model("Instance", __config__=config, **fields)


def row_schema(signature: Signature) -> dict[str, Any]:
    """Return the JSON Schema of one row."""
    return row_model(signature).model_json_schema(by_alias=True)


def magnitude(feature: Feature) -> float | None:
    """Return the largest magnitude that a number of this feature may have, None where only infinity is too large."""
    if feature.largest is not None:
        return feature.largest
    return LARGEST_FLOAT32 if feature.dtype == "float32" else None


def parse_datetime(text: str) -> datetime:
    """Read ISO 8601 text, a date with or without a time, as a naive moment in UTC.

    Raises:
        ValueError: If it is written otherwise.
    """
    if not MOMENT.fullmatch(text):
        raise ValueError("not a date or time such as 2026-11-22 or 2026-11-22T15:30:00Z")
    moment = datetime.fromisoformat(text)
    offset = moment.utcoffset()
    try:
        return moment if offset is None else (moment - offset).replace(tzinfo=None)
    except OverflowError as error:
        raise ValueError("the moment lies beyond the calendar") from error


def _iso(text: str) -> str:
    parse_datetime(text)
    return text


def _utf8(text: str) -> str:
    text.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
    return text


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _one_of(feature: Feature) -> Callable[[float], float]:
    known = frozenset(feature.categories or ())

    def check(value: float) -> float:
        if value not in known:
            raise ValueError("not a known value")
        return value

    return check


def _annotation(feature: Feature) -> Any:
    kind: Any
    if feature.closed and feature.dtype in ("float64", "float32"):
        kind = Annotated[float, AfterValidator(_one_of(feature))]
    elif feature.categories is not None and feature.closed:
        kind = Literal[feature.categories]
        kind = Annotated[kind, BeforeValidator(_whole)] if feature.dtype == "int64" else kind
    elif feature.dtype in ("datetime", "datetime-string"):
        kind = Annotated[str, AfterValidator(_iso), Field(json_schema_extra={"format": "date-time"})]
    elif feature.dtype == "string":
        kind = Annotated[str, AfterValidator(_utf8)]
    elif feature.dtype == "bool":
        kind = bool
    elif feature.dtype == "int64":
        largest = magnitude(feature)
        lowest, highest = (INT64_MIN, INT64_MAX) if largest is None else (-int(largest), int(largest))
        kind = Annotated[int, Field(ge=lowest, le=highest), BeforeValidator(_whole)]
    else:
        bound = magnitude(feature)
        least = None if bound is None else -bound
        kind = Annotated[float, Field(allow_inf_nan=False, ge=least, le=bound)]
    return kind | None if feature.takes_null else kind


def _field(feature: Feature) -> Any:
    facts: dict[str, Any] = {}
    if feature.minimum is not None:
        facts["x-training-range"] = [feature.minimum, feature.maximum]
    if feature.categories is not None and not feature.closed:
        facts["x-known-values"] = list(feature.categories)
    default = ... if feature.required else None
    return Field(default, alias=feature.name, examples=[feature.example], json_schema_extra=facts)
