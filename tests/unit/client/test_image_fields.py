"""Which field takes an image, and which function follows from the images that are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triton_diffusers_client import InvalidRequestError
from triton_diffusers_client.image_fields import with_image_fields

PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({}, None),
        ({"image": b"", "mask": None, "expand": ()}, None),
        ({"image": b"a"}, "i2i"),
        ({"image": PIXELS}, "i2i"),
        ({"image": Path("a.png")}, "i2i"),
        ({"image": "https://a.test/b.png"}, "i2i"),
        ({"image_link": "https://a.test/b.png"}, "i2i"),
        ({"image_base64": "AAAA"}, "i2i"),
        ({"image": b"a", "mask": PIXELS}, "inpaint"),
        ({"image": b"a", "mask_base64": "AAAA"}, "inpaint"),
        ({"image": b"a", "expand": (1, 2, 3, 4)}, "outpaint"),
        ({"image": b"a", "mask": b"b", "expand": [1, 2, 3, 4], "func_name": "outpaint"}, "outpaint"),
        ({"image": b"a", "func_name": "t2i"}, "t2i"),
    ],
)
def test_function_follows_from_images(options: dict[str, Any], function: str | None) -> None:
    assert with_image_fields(options, controlled=False).get("func_name") == function


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({"image": b"a"}, None),
        ({"control_image": b"a"}, None),
        ({"image": b"a", "control_image": [b"b"]}, "i2i"),
        ({"image": b"a", "mask": b"b"}, "inpaint"),
    ],
)
def test_an_image_beside_controlnets_controls_unless_they_have_their_own(
    options: dict[str, Any], function: str | None
) -> None:
    assert with_image_fields(options, controlled=True).get("func_name") == function


@pytest.mark.parametrize("name", ["image", "mask", "control_image"])
def test_urls_go_to_the_fields_for_them(name: str) -> None:
    def fields(value: Any) -> dict[str, Any]:
        made = with_image_fields({name: value, "func_name": "inpaint"}, controlled=True)
        del made["func_name"]
        return made

    assert fields("HTTPS://a.test/b.png") == {f"{name}_link": "HTTPS://a.test/b.png"}
    assert fields("data:image/png;base64,AAAA") == {f"{name}_base64": "data:image/png;base64,AAAA"}
    assert fields("http.png") == {name: "http.png"}
    assert fields(b"http://a.test") == {name: b"http://a.test"}


def test_a_list_of_urls_is_one_field() -> None:
    urls = ["http://a.test/1.png", "https://a.test/2.png"]
    assert with_image_fields({"control_image": urls}, controlled=True) == {"control_image_link": urls}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": b"a", "mask": b"b", "expand": [1, 2, 3, 4]}, "^mask / expand: "),
        ({"control_image": ["a.png", "http://a.test/b.png"]}, "^control_image: files and URLs do not go together"),
        ({"image": "http://a.test/b.png", "image_link": "http://a.test/c.png"}, "^image / image_link: "),
    ],
)
def test_images_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        with_image_fields(options, controlled=False)
