"""What is wrong with a grid, in one line: where, what, and what is allowed."""

import difflib
import re
import reprlib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_LONGEST_INPUT = 80  # characters of a wrong value that an error shows


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """A validation's first error as one line: where, what, and what is allowed."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = list(_model_at(model, first["loc"][:-1]).model_fields)
        if not allowed:
            return f"unknown key {where!r}; no keys are allowed here"
        nearest = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1, cutoff=0.0)[0]
        return f"unknown key {where!r}; did you mean {nearest!r}? Allowed: {', '.join(allowed)}"
    if first["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        said = shown(first["input"])
        nearest = difflib.get_close_matches(said, allowed, n=1, cutoff=0.0)[0]
        return f"{where}: unknown value {said}; did you mean {nearest!r}? Allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    message = _KINDS.get(first["type"]) or first["msg"].replace("Input should be", "must be")
    return f"{where}: {message}, not {shown(first['input'])}"


def shown(value: Any) -> str:
    """A wrong value, or as much of it as fits in a line."""
    return reprlib.repr(value)[:_LONGEST_INPUT]


_WHOLE, _NUMBER, _MAPPING = "must be a whole number", "must be a number", "must be a mapping of keys to values"
_KINDS = {
    "tuple_type": "must be a list, such as [0, 1]",
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": "must be a finite number",
    "string_type": "must be text",
    "model_type": _MAPPING, "dict_type": _MAPPING, "model_attributes_type": _MAPPING,
}  # fmt: skip
"""Messages for a value of the wrong kind, by pydantic's name for the error."""


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that validates the value at a location."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return model
