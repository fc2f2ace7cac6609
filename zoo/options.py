"""Options of plugins: declared by annotations, checked before anything is built.

Cells, heads, topologies and data sets declare an option as an argument with a default and a type
that JSON can hold: ``int``, ``float``, ``bool``, ``str``, ``Literal``, ``tuple`` and unions of
them. ``Annotated`` adds a range::

    def __init__(self, in_channels, channels, window: Annotated[int, Field(ge=1, le=64)] = 30):

This module needs no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, get_type_hints

from pydantic import (
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from zoo.errors import ConfigError, abbreviate, did_you_mean

__all__ = [
    "KernelSize",
    "Option",
    "argument_types",
    "check_option",
    "complete_options",
    "declared_options",
    "requested",
]


#: The kernel size of a convolution.
KernelSize = Annotated[int, Field(ge=1, le=63)]

#: What pydantic expects, in plain words.
PLAIN = {
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid integer": "a whole number",
    "a valid string": "a text",
    "a valid number": "a number",
    "a valid boolean": "true or false",
}


class Option(NamedTuple):
    """An option of a cell, head, topology or data set.

    Attributes:
        default: its default; ``inspect.Parameter.empty`` if it has none.
        type: its annotation; Any if it has none, or none that can be resolved.
    """

    default: Any
    type: Any


def declared_options(function: Callable[..., Any], given: Collection[str]) -> dict[str, Option]:
    """Return the options of a class or a function by name, read from its signature.

    Args:
        function: the class or the function.
        given: the names of its other arguments, which are not options.
    """
    types = argument_types(function.__init__ if inspect.isclass(function) else function)
    return {
        name: Option(parameter.default, types.get(name, Any))
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in given
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def argument_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function; none if a name in them cannot be resolved."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # evaluating a plugin's annotations may fail in any way
        return {}


def requested(function: Callable[..., Any], **offered: Any) -> dict[str, Any]:
    """Return those of the offered arguments that a class or a function names."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in names}


def complete_options(
    owner: str,
    declared: Mapping[str, Option],
    values: Mapping[str, Any],
    others: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the values of all declared options, those given and the defaults of the others.

    Args:
        owner: what has the options, for error messages.
        declared: the options.
        values: those that are given.
        others: other names that the user may have meant.

    Raises:
        ConfigError: for an unknown option, a value of another type or out of its range, and an
            option without a default that is not given.
    """
    for name in values:
        if name not in declared:
            raise ConfigError(
                f"{owner} has no option {name!r}{did_you_mean(name, {*declared, *others})}; "
                f"its own options are: {', '.join(declared) or 'none'}"
            )
    complete = {}
    for name, option in declared.items():
        if name in values:
            complete[name] = check_option(owner, name, values[name], option.type)
        elif option.default is inspect.Parameter.empty:
            raise ConfigError(f"{owner} needs the option {name!r}, which has no default")
        else:
            complete[name] = option.default
    return complete


def check_option(owner: str, name: str, value: Any, expected: Any) -> Any:
    """Return a value as its annotated type, as it is after a round trip through JSON.

    Raises:
        ConfigError: if the value is of another type or out of range.
    """
    try:
        adapter = TypeAdapter(expected, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError:
        return value  # a plugin's annotation that pydantic does not know
    try:
        return adapter.validate_json(to_json(value), strict=True)
    except (PydanticSerializationError, RecursionError):
        forms = ["a JSON value"]
    except ValidationError as error:
        forms = list(dict.fromkeys(map(_expectation, error.errors())))
    raise ConfigError(
        f"{owner}: the option {name} is {abbreviate(value)}; expected {' or '.join(forms)}"
    )


def _expectation(error: ErrorDetails) -> str:
    """What pydantic expected, as a noun."""
    limits = error.get("ctx", {})
    if error["type"] == "too_short":
        return f"at least {limits['min_length']} items"
    if error["type"] == "too_long":
        return f"at most {limits['max_length']} items"
    if error["type"] == "greater_than_equal":
        return f"{limits['ge']} or more"
    if error["type"] == "less_than_equal":
        return f"{limits['le']} or less"
    text = error["msg"].removeprefix("Input should be ")
    return PLAIN.get(text, text)
