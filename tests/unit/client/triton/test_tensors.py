"""Values to tensors, through tritonclient's real packing, and back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from triton_diffusers_client import EncodedImage, InvalidRequestError, ServerError
from triton_diffusers_client import Image as Drawn
from triton_diffusers_client.fields import CONTROL_INPUTS, INPUTS, JOBS_INPUTS, InputField, OutputField
from triton_diffusers_client.triton.grpc_transport import _tensor as grpc_tensor
from triton_diffusers_client.triton.http_transport import _tensor as http_tensor
from triton_diffusers_client.triton.tensors import decode, encode


def test_every_request_sends_all_inputs() -> None:
    few, many = encode({}, INPUTS, batched=True), encode({"lora_path": ["a", "b"], "steps": 3}, INPUTS, batched=True)
    assert list(few) == list(many) == [field.name for field in INPUTS]
    assert {name: array.dtype for name, array in few.items()} == {name: array.dtype for name, array in many.items()}


def test_shapes() -> None:
    arrays = encode({"lora_path": ["a", "b"], "lora_attn": 0.5, "use_translate": None}, INPUTS, batched=True)
    assert arrays["steps"].shape == (1, 1)
    assert arrays["lora_path"].shape == (1, 2)
    assert arrays["lora_attn"].shape == (1, 1), "a list may be given as its only element"
    assert arrays["use_translate"].shape == arrays["expand"].shape == (1, 0)
    assert encode({}, JOBS_INPUTS, batched=False)["action"].shape == (1,)


def test_text_is_sent_as_utf8() -> None:
    assert encode({"prompt": "红苹果 🍎"}, INPUTS, batched=True)["prompt"][0, 0] == "红苹果 🍎".encode()


def test_an_image_may_be_bytes_a_path_one_of_a_result_or_a_pillow_image(tmp_path: Path) -> None:
    def sent(value: Any) -> bytes:
        return bytes(encode({"image": value}, INPUTS, batched=True)["image"][0, 0])

    image = Image.new("RGB", (4, 4), "red")
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert sent(data) == sent(bytearray(data)) == sent(tmp_path / "a.png") == sent(str(tmp_path / "a.png")) == data
    assert sent(EncodedImage(data)) == sent(Drawn(data, seed=1)) == data
    assert Image.open(io.BytesIO(sent(image))).size == (4, 4)


def test_a_list_of_images_may_mix_kinds() -> None:
    def sent(value: Any) -> list[bytes]:
        return [
            bytes(image) for image in encode({"control_image": value}, CONTROL_INPUTS, batched=True)["control_image"][0]
        ]

    assert sent(b"a") == sent(bytearray(b"a")) == sent([b"a"]) == [b"a"]
    assert sent([b"a", bytearray(b"b")]) == [b"a", b"b"]
    assert len(sent(Image.new("RGB", (4, 4)))) == 1


@pytest.mark.parametrize("tensor", [http_tensor, grpc_tensor])
def test_tritonclient_takes_every_tensor_even_empty_ones(tensor: Any) -> None:
    for name, array in encode({"prompt": "x"}, INPUTS, batched=True).items():
        packed = tensor(name, array)
        assert list(packed.shape()) == list(array.shape)
        assert packed.datatype() == {"O": "BYTES", "l": "INT64", "f": "FP32", "?": "BOOL"}[array.dtype.char]


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("prompt", b"bytes", "a text"),
        ("prompt", "\ud800", "UTF-8"),
        ("steps", 1.5, "a whole number"),
        ("steps", True, "a whole number"),
        ("steps", "20", "a whole number"),
        ("steps", 2**63, "64 bits"),
        ("cfg_scale", "7", "a number"),
        ("cfg_scale", float("nan"), "a finite number"),
        ("return_images", "false", "True or False"),
        ("expand", [1, "2"], "a whole number"),
        ("use_translate", 1, "True or False"),
        (
            "image",
            7,
            "an encoded image's bytes, a path, a file opened in binary mode, a URL, a Pillow image, or a numpy array",
        ),
        ("image", "/no/such/image.png", "a file that can be read"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any, wanted: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{field}: .*{wanted}"):
        encode({field: value}, INPUTS, batched=True)


@pytest.mark.parametrize(
    ("datatype", "value", "array"),
    [("INT64", 3, np.int64(3)), ("FP32", 1, np.float32(1)), ("BOOL", np.True_, True), ("FP32", np.float32(2.5), 2.5)],
)
def test_numpy_scalars_and_whole_floats_are_fine(datatype: Any, value: Any, array: Any) -> None:
    assert encode({"x": value}, [InputField("x", datatype, 0)], batched=False)["x"] == array


def test_decode_gives_python_values() -> None:
    fields = [OutputField("n", "INT64"), OutputField("x", "FP32"), OutputField("b", "STRING", many=True)]
    arrays = {
        "n": np.array([[5]]),
        "x": np.array([[0.55]], np.float32),
        "b": np.array([[b"\x89\x00", b""]], object),
        "new": np.array([1]),
    }
    assert decode(arrays, fields) == {"n": 5, "x": 0.55, "b": (b"\x89\x00", b"")}


@pytest.mark.parametrize("arrays", [{}, {"n": np.empty((1, 0), np.int64)}, {"n": np.array([[1, 2]])}])
def test_an_answer_of_another_shape_is_the_servers_fault(arrays: dict[str, Any]) -> None:
    with pytest.raises(ServerError):
        decode(arrays, [OutputField("n", "INT64")])


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_an_array_of_pixels_is_an_image(shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    sent = Image.open(io.BytesIO(encode({"image": pixels}, INPUTS, batched=True)["image"][0, 0]))
    assert (np.asarray(sent) == pixels.reshape(np.asarray(sent).shape)).all()
    (only,) = encode({"control_image": pixels}, CONTROL_INPUTS, batched=True)["control_image"][0]
    assert Image.open(io.BytesIO(only)).size == (6, 4)
    assert encode({"control_image": [pixels, pixels]}, CONTROL_INPUTS, batched=True)["control_image"].shape == (1, 2)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((512, 512, 3), np.float32),
        np.zeros((3, 512, 512), np.uint8),
        np.zeros(512, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_an_array_that_is_not_an_image_is_refused_by_its_shape(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode({"image": array}, INPUTS, batched=True)
    assert str(caught.value).startswith(
        f"image: a numpy array of shape {array.shape} and type {array.dtype} is invalid: it must be uint8 pixels"
    )


@pytest.mark.parametrize("value", [np.zeros((9, 9)), b"x" * 10_000, [[0] * 1000], {"a": "b" * 1000}, object()])
def test_error_messages_are_short(value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode({"prompt": value}, INPUTS, batched=True)
    assert len(str(caught.value)) < 150


def test_an_open_file_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"line\nline")
    for table, field in ((INPUTS, "image"), (CONTROL_INPUTS, "control_image")):
        with (tmp_path / "a").open("rb") as opened:
            assert encode({field: opened}, table, batched=True)[field].tolist() == [[b"line\nline"]]
    with (tmp_path / "a").open() as text, pytest.raises(InvalidRequestError, match="opened in binary mode"):
        encode({"image": text}, INPUTS, batched=True)
