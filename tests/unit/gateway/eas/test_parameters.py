"""Query parameters of queue calls."""

from __future__ import annotations

import pytest

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.dialects.eas.parameters import Parameters


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("500ms", 0.5),
        ("1m0s", 60.0),
        ("1h2m3.5s", 3723.5),
        ("0", 0.0),
        ("7", 7.0),
        ("2.5", 2.5),
        (".5s", 0.5),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert Parameters({"_timeout_": text}).seconds("_timeout_") == pytest.approx(seconds)


def test_flags_numbers_and_tags_are_read() -> None:
    parameters = Parameters(
        {"_raw_": "False", "_indexes_": "1, 2,3", "_index_": "-1", "color": "red", "requestId": "r", "_x_": "y"}
    )
    assert parameters.flag("_raw_", default=True) is False
    assert parameters.flag("_watch_") is False
    assert (parameters.indexes(), parameters.index(), parameters.request_id) == ([1, 2, 3], -1, "r")
    assert parameters.tags == {"color": "red"}
    assert Parameters({}).request_id is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"_raw_": "maybe"}, "_raw_: 'maybe' is invalid: must be true or false"),
        ({"_timeout_": "soon"}, "_timeout_: 'soon' is invalid: must be a duration, such as 500ms, 5s or 1m30s"),
        ({"_timeout_": "-5s"}, "_timeout_: '-5s' is invalid: must be a duration, such as 500ms, 5s or 1m30s"),
        ({"_index_": "9" * 30}, "_index_: '999"),
        ({"_index_": "-2"}, "_index_: '-2' is invalid: must be a whole number between -1 and 9223372036854775807"),
        ({"_indexes_": ""}, "_indexes_: '' is invalid: must be 1 to 1000 numbers separated by commas"),
        ({"_indexes_": "1,x"}, "_indexes_: 'x' is invalid: must be a whole number"),
        ({"_indexes_": ",".join(["1"] * 1001)}, "_indexes_: '1,1"),
    ],
)
def test_invalid_parameters_are_named(query: dict[str, str], message: str) -> None:
    parameters = Parameters(query)
    (name,) = query
    reads = {"_raw_": lambda: parameters.flag("_raw_"), "_timeout_": lambda: parameters.seconds("_timeout_")}
    reads |= {"_index_": parameters.index, "_indexes_": parameters.indexes}
    with pytest.raises(InvalidRequest) as raised:
        reads[name]()
    assert str(raised.value).startswith(message)
