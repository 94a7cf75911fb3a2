"""Any arrays become a request, or an error that names a field."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.unit.api.test_decode import SETTINGS
from tests.unit.api.test_decode_images import IMAGE
from tests.unit.conftest import DEFAULTS, NUMPY_TYPES, tensors
from triton_diffusers.api.contract import CONTRACTS, INPUT_BY_NAME, Input
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.request import (
    GenerationRequest,
)
from triton_diffusers.errors import InvalidRequest

# The other generating model's are among them.
ALL_INPUTS = CONTRACTS["sd_controlnet"].inputs
SIZES = {"width × height", "width × height with expand"}
# Fields that a random func_name may need, and those that a random control image replaces.
IMAGES = {"image / image_base64 / image_link", "image"}
ELEMENTS = {
    "STRING": st.one_of(
        st.text().map(str.encode),
        st.binary(),
        st.sampled_from([b"", b"t2i", b"i2i", b"png", b"1", b"-1", b"Euler", b"a-task", b"x" * 5000]),
    ),
    "BYTES": st.binary(max_size=20),
    "INT64": st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 200)),
    "FP32": st.one_of(st.floats(width=32), st.floats(1, 30, width=32)),
    "BOOL": st.booleans(),
}


def any_array(field: Input) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    shapes = st.one_of(st.just((1, 1)), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    return arrays.arrays(NUMPY_TYPES[field.datatype], shapes, elements=ELEMENTS[field.datatype], fill=st.nothing())


def outcome(fields: dict[str, np.ndarray[Any, Any]]) -> GenerationRequest | InvalidRequest:
    """Return the request, or its refusal; nothing else may come of it."""
    try:
        return decode_request(read_values(fields, ALL_INPUTS), SETTINGS, DEFAULTS)
    except InvalidRequest as refusal:
        return refusal


@settings(max_examples=300, deadline=None)
@given(
    sent=st.fixed_dictionaries({}, optional={field.name: any_array(field) for field in ALL_INPUTS}),
    completed=st.booleans(),
)
def test_any_arrays_give_a_request_or_are_refused(sent: dict[str, np.ndarray[Any, Any]], *, completed: bool) -> None:
    result = outcome({**(tensors(image=IMAGE) if completed else {}), **sent})
    if isinstance(result, GenerationRequest):
        assert 1 <= result.steps <= SETTINGS.max_steps
        assert 1 <= result.guidance_scale <= 30
        assert min(result.width, result.height) >= 16
        assert result.width * result.height <= SETTINGS.max_pixels
        assert 0 <= result.seed < 2**64
        assert 1 <= len(result.controls) <= SETTINGS.max_controlnets
        assert all(0 <= control.start < control.end <= 1 for control in result.controls)
    else:
        assert set(result.field.split(" / ")) <= {*INPUT_BY_NAME, *SIZES}
        assert len(str(result)) < 1000


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_array_in_one_field_is_read_or_refused(data: st.DataObject) -> None:
    """Vary one field at a time: a request with many invalid fields fails at the first one."""
    field = data.draw(st.sampled_from(ALL_INPUTS))
    result = outcome({**tensors(image=IMAGE), field.name: data.draw(any_array(field))})
    assert isinstance(result, GenerationRequest) or field.name in result.field or result.field in SIZES | IMAGES
