"""Options of plugins: declared by annotations, checked before use."""

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from zoo.errors import ConfigError
from zoo.options import check_option, complete_options, declared_options, requested

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class Part:
    def __init__(
        self,
        channels: int,
        window: Annotated[int, Field(ge=1, le=64)] = 30,
        order: Literal["first", "last"] = "first",
        *others: int,
        odd=None,
        **more: int,
    ):
        pass


def untyped(layers, halvings: "Missing" = 2):  # noqa: F821
    pass


def test_options_are_the_other_arguments():
    options = declared_options(Part, ["channels"])
    assert list(options) == ["window", "order", "odd"]
    assert options["order"] == ("first", Literal["first", "last"])
    assert options["window"].default == 30
    assert options["odd"] == (None, Any)


def test_type_that_is_not_found_is_any():
    assert declared_options(untyped, ["layers"]) == {"halvings": (2, Any)}


def test_only_named_arguments_are_passed():
    assert requested(Part, channels=3, size=(8, 8)) == {"channels": 3}


def test_defaults_complete_the_options():
    options = declared_options(Part, ["channels"])
    assert complete_options("it", options, {"order": "last"}) == {
        "window": 30,
        "order": "last",
        "odd": None,
    }
    assert complete_options("it", options, {"odd": {"any": [1]}})["odd"] == {"any": [1]}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"windo": 3}, "'windo'.*window"),
        ({"window": 0}, "window is 0; expected 1 or more"),
        ({"window": 65}, "window is 65; expected 64 or less"),
        ({"window": "3"}, "window.*a whole number"),
        ({"order": "middle"}, "'first' or 'last'"),
        ({"order": "x" * 10_000}, "x…"),
    ],
)
def test_invalid_option_is_an_error_of_one_line(values, named):
    with pytest.raises(ConfigError, match=named) as caught:
        complete_options("it", declared_options(Part, ["channels"]), values)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_option_without_default_must_be_given():
    options = declared_options(Part, [])
    assert options["channels"].default is inspect.Parameter.empty
    with pytest.raises(ConfigError, match="'channels'"):
        complete_options("it", options, {})
    assert complete_options("it", options, {"channels": 3})["channels"] == 3


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (3, float, 3.0),
        ([3, 5], tuple[int, ...], (3, 5)),
        ((3, 5), tuple[int, ...], (3, 5)),
        (None, int | None, None),
        # A type that pydantic does not know accepts anything.
        pytest.param(object(), pytest.Config, ..., id="unknown type"),
    ],
    ids=str,
)
def test_value_is_returned_as_its_type(value, type_, expected):
    assert check_option("it", "option", value, type_) == (value if expected is ... else expected)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (True, int),
        (1, bool),
        (3.0, int),
        (float("nan"), float),
        (float("inf"), float),
        ("3", float),
        (3, tuple[int, ...]),
        ([3, "x"], tuple[int, ...]),
        (object(), int),
        (Path, str | None),
        (10**5000, Annotated[int, Field(le=9)]),
    ],
    ids=range(11),
)
def test_value_of_another_type_is_an_error(value, type_):
    with pytest.raises(ConfigError, match="option"):
        check_option("it", "option", value, type_)


@given(JSON, st.sampled_from([int, float, bool, str, tuple[int, ...], Literal["a", 1], int | None]))
def test_any_value_is_valid_or_an_error_of_one_line(value, type_):
    try:
        checked = check_option("it", "option", value, type_)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        # Not every integer is a float.
        expected = float(value) if isinstance(checked, float) else value
        assert checked == (tuple(value) if isinstance(value, list) else expected)
