"""Decoding requests: each field at, below and above its limits, and anything at all."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.unit.conftest import DEFAULTS, NATIVE_SIDE, NUMPY_TYPES, tensors
from triton_diffusers.api.contract import CONTRACTS, INPUT_BY_NAME, INPUTS, Input
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.request import (
    DataUrl,
    Expansion,
    Fill,
    FromBase64,
    Function,
    GenerationRequest,
    Link,
    LoraChoice,
    OutputFormat,
    ResizeMode,
    SafetyAction,
)
from triton_diffusers.errors import InvalidImage, InvalidRequest
from triton_diffusers.settings import Settings

SETTINGS = Settings(max_prompt_chars=1000)


def decoded(settings: Settings = SETTINGS, /, **values: Any) -> GenerationRequest:
    return decode_request(read_values(tensors(**values), INPUTS), settings, DEFAULTS)


def test_a_request_with_everything() -> None:
    request = decoded(
        task_id="t-1",
        prompt="蓝色背景上的红苹果",
        negative_prompt="blurry 🍎",
        func_name="t2i",
        steps=20,
        cfg_scale=5.55,
        width=100,
        height=90,
        seed="123",
        image_num=2,
        scheduler="euler ancestral",
        output_format="jpeg",
    )
    assert request == GenerationRequest(
        task_id="t-1",
        prompt="蓝色背景上的红苹果",
        negative_prompt="blurry 🍎",
        function=Function.TEXT_TO_IMAGE,
        steps=20,
        guidance_scale=5.55,
        width=100,
        height=90,
        seed=123,
        image_num=2,
        scheduler="Euler a",
        output_format=OutputFormat.JPEG,
    )


def test_a_size_that_is_left_out_is_the_models_own() -> None:
    assert (decoded().width, decoded().height) == (NATIVE_SIDE, NATIVE_SIDE)
    assert (decoded(width=64).width, decoded(width=64).height) == (64, NATIVE_SIDE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 1),
        ("steps", 150),
        ("cfg_scale", 1.0),
        ("cfg_scale", 30.0),
        ("width", 16),
        ("width", 2048),
        ("height", 16),
        ("height", 2048),
        ("image_num", 1),
        ("image_num", 8),
        ("prompt", ""),
        ("prompt", "x" * 1000),
        ("prompt", "\0\n\u202e"),
        ("negative_prompt", "汉" * 1000),
        ("scheduler", "lcm"),
        ("output_format", "webp"),
        ("seed", "0"),
        ("seed", str(2**64 - 1)),
        ("seed", "00000000000000000007"),
        ("task_id", "a"),
        ("task_id", "x" * 128),
        ("task_id", "a..b"),
        ("task_id", "_-.A9"),
    ],
)
def test_values_at_the_limits_are_accepted(field: str, value: Any) -> None:
    decoded(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", -1, "steps: -1 is invalid: must be between 1 and 150"),
        ("steps", 151, "steps: 151 is invalid: must be between 1 and 150"),
        ("steps", -(2**63), "steps: -9223372036854775808 is invalid"),
        ("steps", 2**63 - 1, "steps: 9223372036854775807 is invalid"),
        ("cfg_scale", 0.99, "cfg_scale: 0.99 is invalid: must be between 1.0 and 30.0"),
        ("cfg_scale", 30.01, "cfg_scale: 30.01 is invalid: must be between 1.0 and 30.0"),
        ("cfg_scale", np.nan, "cfg_scale: nan is invalid"),
        ("cfg_scale", np.inf, "cfg_scale: inf is invalid"),
        ("cfg_scale", -np.inf, "cfg_scale: -inf is invalid"),
        ("width", 15, "width: 15 is invalid: must be between 16 and 2048"),
        ("width", 2049, "width: 2049 is invalid: must be between 16 and 2048"),
        ("width", -1, "width: -1 is invalid"),
        ("height", 15, "height: 15 is invalid: must be between 16 and 2048"),
        ("height", 2049, "height: 2049 is invalid: must be between 16 and 2048"),
        ("image_num", 0, "image_num: 0 is invalid: must be between 1 and 8"),
        ("image_num", 9, "image_num: 9 is invalid: must be between 1 and 8"),
        ("prompt", "x" * 1001, "prompt: '1001 characters' is invalid: at most 1000"),
        ("negative_prompt", "汉" * 1001, "negative_prompt: '1001 characters' is invalid: at most 1000"),
        ("scheduler", "magic", "scheduler: 'magic' is invalid: known: DPM++ 2M .*LCM"),
        ("func_name", "t2v", "func_name: 't2v' is invalid: must be one of: t2i, i2i, inpaint, outpaint"),
        ("output_format", "PNG", "output_format: 'PNG' is invalid: must be one of: png, jpeg, webp"),
        ("output_format", "", "output_format: '' is invalid"),
        ("output_quality", 0, "output_quality: 0 is invalid: must be between 1 and 100"),
        ("output_quality", 101, "output_quality: 101 is invalid: must be between 1 and 100"),
        ("seed", "-2", "seed: '-2' is invalid: a whole number from 0 to 18446744073709551615"),
        ("seed", str(2**64), "seed: '18446744073709551616' is invalid"),
        ("seed", "0" * 21, "seed: '000000000000000000000' is invalid"),
        ("seed", "1.5", "seed: '1.5' is invalid"),
        ("seed", " 1", "seed: ' 1' is invalid"),
        ("seed", "1\n", "seed: "),
        ("seed", "٣", "seed: '٣' is invalid"),  # a digit, but no ASCII one
        ("seed", "0x10", "seed: '0x10' is invalid"),
        ("task_id", "", "task_id: '' is invalid: 1 to 128 letters"),
        ("task_id", ".", "task_id: '.' is invalid"),
        ("task_id", "..", "task_id: '..' is invalid"),
        ("task_id", ".hidden", "task_id: '.hidden' is invalid"),
        ("task_id", "a/b", "task_id: 'a/b' is invalid"),
        ("task_id", "../a", "task_id: '../a' is invalid"),
        ("task_id", "a\\b", "task_id: "),
        ("task_id", "a\0b", "task_id: "),
        ("task_id", "a b", "task_id: 'a b' is invalid"),
        ("task_id", "a\n", "task_id: "),
        ("task_id", "é", "task_id: 'é' is invalid"),
        ("task_id", "任务", "task_id: '任务' is invalid"),
        ("task_id", "x" * 129, "task_id: 'x{78}… is invalid: 1 to 128 letters"),
    ],
)
def test_values_beyond_the_limits_are_refused_with_field_value_and_limit(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message.replace('+', '[+]')}") as caught:
        decoded(**{field: value})
    assert caught.value.field == field


def test_the_area_has_a_limit_of_its_own() -> None:
    decoded(width=1024, height=1024)
    decoded(width=2048, height=512)
    with pytest.raises(InvalidRequest, match="width × height: '2048×513' is invalid: at most 1048576 pixels"):
        decoded(width=2048, height=513)


def test_no_more_images_than_can_be_in_flight() -> None:
    with pytest.raises(InvalidRequest, match="image_num: 3 is invalid: must be between 1 and 2"):
        decoded(Settings(max_images_in_flight=2), image_num=3)


@pytest.mark.parametrize("nothing", ["", "-1"])
def test_no_seed_is_a_random_one(nothing: str) -> None:
    seeds = {decoded(seed=nothing).seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize("missing", ["task_id", "prompt"])
def test_required_fields(missing: str) -> None:
    fields = tensors()
    del fields[missing]
    with pytest.raises(InvalidRequest, match=f"{missing}: None is invalid: the field is required"):
        read_values(fields, INPUTS)


@pytest.mark.parametrize("name", ["prompt", "steps", "return_images", "cfg_scale"])
def test_a_second_row_or_none_is_refused(name: str) -> None:
    fields = tensors(steps=3, return_images=True, cfg_scale=3.0)
    for rows in (np.concatenate([fields[name]] * 2), fields[name][:0]):
        with pytest.raises(InvalidRequest, match=f"{name}: '{rows.size} values' is invalid: exactly one"):
            read_values({**fields, name: rows}, INPUTS)


def test_a_second_row_of_a_list_is_refused() -> None:
    rows = np.ones((2, 2), np.int64)
    with pytest.raises(InvalidRequest, match="expand: '2 rows' is invalid"):
        read_values({**tensors(), "expand": rows}, INPUTS)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lora_attn", np.zeros((1, 1025), np.float32)),
        ("expand", np.zeros((1, 100_000), np.int64)),
        ("lora_path", np.full((1, 1025), b"a", np.object_)),
        ("use_translate", np.zeros((1, 5000), np.bool_)),
    ],
)
def test_every_lists_length_is_bounded(name: str, values: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"^{name}: '{values.size} values' is invalid: at most 1024$"):
        read_values({**tensors(), name: values}, INPUTS)
    assert len(read_values({**tensors(), name: values[:, :1024]}, INPUTS)[name]) == 1024


@pytest.mark.parametrize("name", ["task_id", "prompt", "negative_prompt", "seed", "scheduler", "save_dir"])
def test_text_must_be_utf_8(name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"{name}: b'.*xff' is invalid: text must be UTF-8"):
        decoded(**{name: b"ab\xff"})


IMAGE = b"\x89PNG, or whatever it is: not looked at here"


def test_a_request_with_images_and_loras() -> None:
    request = decoded(
        func_name="outpaint",
        image=IMAGE,
        denoising_strength=0.7,
        resize_mode=2,
        keep_unmasked=False,
        width=64,
        height=32,
        expand=[1, 2, 3, 4],
        expand_type="reflect",
        clip_skip=2,
        lora_path=["lora/a.safetensors", "lora/b.bin"],
        lora_attn=[0.5, -1.5],
        save_dir="mine/today",
        store_images=False,
        embed_metadata=False,
    )
    assert request.function is Function.OUTPAINT
    assert (request.image, request.mask) == (IMAGE, None)
    assert request.expansion == Expansion(left=1, right=2, up=3, down=4, fill=Fill.REFLECT)
    assert request.size == (67, 39)
    assert (request.denoising_strength, request.resize_mode, request.clip_skip) == (0.7, ResizeMode.PAD, 2)
    assert request.loras == (LoraChoice("lora/a.safetensors", 0.5), LoraChoice("lora/b.bin", -1.5))
    assert (request.save_dir, request.store_images) == ("mine/today", False)
    assert (request.keep_unmasked, request.embed_metadata) == (False, False)


def test_image_requests_have_defaults() -> None:
    request = decoded(func_name="outpaint", image=IMAGE, width=64, height=64)
    assert request.expansion == Expansion(left=128, right=128, up=128, down=128, fill=Fill.COPY)
    assert (request.denoising_strength, request.resize_mode, request.keep_unmasked) == (0.55, ResizeMode.STRETCH, True)
    assert decoded(expand=[1, 2, 3, 4]).expansion is None


@pytest.mark.parametrize("given", [0.0, 0.05, 0.1])
def test_a_small_strength_stays(given: float) -> None:
    assert decoded(func_name="i2i", image=IMAGE, denoising_strength=given).denoising_strength == given


def test_each_way_to_send_an_image() -> None:
    assert decoded(func_name="i2i", image=IMAGE).image == IMAGE
    assert decoded(func_name="i2i", image_base64=base64.b64encode(IMAGE).decode()).image == FromBase64(IMAGE)
    assert decoded(func_name="i2i", image_link="https://a.test/b.png").image == Link("https://a.test/b.png")
    as_data = decoded(func_name="i2i", image_link="data:application/octet-stream;base64,UE5H")
    assert as_data.image == DataUrl(b"PNG")
    assert (as_data.links, as_data.encoded_bytes) == ({}, 3)
    inpaint = decoded(func_name="inpaint", image=IMAGE, mask_link="https://a.test/m.png")
    assert inpaint.mask == Link("https://a.test/m.png")
    assert (inpaint.mask_channel, decoded(mask_channel="alpha").mask_channel) == ("luminance", "alpha")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"func_name": "i2i"}, r"image / image_base64 / image_link: .* i2i needs exactly one of the three"),
        ({"func_name": "i2i", "image": IMAGE, "image_link": "http://a.test"}, "image / .* needs exactly one"),
        ({"func_name": "inpaint", "image": IMAGE}, "mask / mask_base64 / mask_link: .* needs exactly one"),
        ({"func_name": "i2i", "image_link": "data:image/png;base64,?"}, "image_link: .*as base64 .* or a data URL"),
        ({"image_link": "http://a.test"}, "image_link: 'http://a.test' is invalid: t2i takes no image"),
        ({"func_name": "i2i", "image": IMAGE, "mask": IMAGE}, "mask: .* i2i takes no mask"),
        (
            {"func_name": "inpaint", "image": IMAGE, "mask": IMAGE, "mask_channel": "red"},
            "mask_channel: 'red' .* alpha",
        ),
        ({"func_name": "i2i", "image": IMAGE, "denoising_strength": 1.01}, "denoising_strength: 1.01 is invalid"),
        ({"func_name": "i2i", "image": IMAGE, "denoising_strength": -0.1}, "denoising_strength: -0.1 is invalid"),
        ({"func_name": "i2i", "image": IMAGE, "denoising_strength": np.nan}, "denoising_strength: nan is invalid"),
        ({"func_name": "i2i", "image": IMAGE, "resize_mode": 3}, "resize_mode: 3 is invalid: .* 0 and 2"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [1, 2, 3]}, "expand: .* must be four whole numbers"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [0] * 4}, "expand: .* at least one side must grow"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [-1, 1, 1, 1]}, "expand: -1 is invalid: .* 0 and 2048"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [2**62] * 4}, "expand: 4611686018427387904 is invalid"),
        ({"func_name": "outpaint", "image": IMAGE, "expand_type": "wrap"}, "expand_type: 'wrap' .* copy, reflect"),
        (
            {"func_name": "outpaint", "image": IMAGE, "width": 64, "height": 64, "expand": [2048, 0, 0, 0]},
            "width × height with expand: '2112×64' is invalid: at most 2048 pixels a side",
        ),
        (
            {"func_name": "outpaint", "image": IMAGE, "width": 1024, "height": 1024, "expand": [1, 0, 0, 0]},
            "width × height with expand: '1025×1024' is invalid: at most 1048576 pixels",
        ),
        ({"clip_skip": 0}, "clip_skip: 0 is invalid"),
        ({"clip_skip": 25}, "clip_skip: 25 is invalid"),
        ({"lora_path": ["a"] * 9}, "lora_path: '9 values' is invalid: at most 8"),
        ({"lora_path": ["a", "b", "c"], "lora_attn": [1.0, 2.0]}, "lora_attn: .* one value, or one for each of the 3"),
        ({"lora_path": ["a"], "lora_attn": [10.1]}, "lora_attn: 10.1 is invalid: must be between -10.0 and 10.0"),
        ({"lora_path": ["a"], "lora_attn": [np.inf]}, "lora_attn: inf is invalid"),
        ({"save_dir": "../elsewhere"}, "save_dir: '../elsewhere' is invalid"),
    ],
)
def test_contradicting_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}"):
        decoded(**fields)


@pytest.mark.parametrize(
    ("paths", "weights", "expected"),
    [
        (["a", "b"], [], [0.75, 0.75]),
        (["a", "b"], [0.4], [0.4, 0.4]),
        (["a", "b"], [0.4, -1.0], [0.4, -1.0]),
        ([], [0.4], []),
        ([""], [], []),
    ],
)
def test_weights_of_loras(paths: list[str], weights: list[float], expected: list[float]) -> None:
    assert [lora.weight for lora in decoded(lora_path=paths, lora_attn=weights).loras] == expected


def test_an_encoded_image_has_a_limit() -> None:
    small = Settings(max_image_megabytes=0.001)
    with pytest.raises(InvalidImage, match=r"image: '0\.0 MB' is invalid: at most 0\.001 MB"):
        decoded(small, func_name="i2i", image=b"x" * 1001)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decoded(scheduler="x" * 10_000)
    assert len(str(caught.value).split(" is invalid")[0]) == len("scheduler: ") + 80


def test_a_float_is_shown_as_it_was_written() -> None:
    with pytest.raises(InvalidRequest, match=r"denoising_strength: 1\.56 is invalid"):
        decoded(denoising_strength=1.56)


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


@pytest.mark.parametrize(
    ("setting", "field", "action"),
    [
        ("blacken", "", SafetyAction.BLACKEN),
        ("blacken", "blacken", SafetyAction.BLACKEN),
        ("choose", "", SafetyAction.BLACKEN),
        ("choose", "flag", SafetyAction.FLAG),
        ("flag", "", SafetyAction.FLAG),
        ("flag", "flag", SafetyAction.FLAG),
        ("flag", "blacken", SafetyAction.BLACKEN),
    ],
)
def test_safety_action_is_what_the_operator_allows(setting: Any, field: str, action: SafetyAction) -> None:
    assert decoded(Settings(safety_action=setting), safety_action=field).safety_action is action


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "flag",
            "safety_action: 'flag' is invalid: this server blackens flagged images; its operator may allow it",
        ),
        ("off", "safety_action: 'off' is invalid: must be one of: blacken, flag"),
    ],
)
def test_safety_action_is_refused_unless_it_is_allowed(value: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}$"):
        decoded(safety_action=value)
