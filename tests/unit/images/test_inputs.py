"""Loading the input images of a request."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from triton_diffusers.api.request import (
    ControlChoice,
    DataUrl,
    Expansion,
    FromBase64,
    Function,
    GenerationRequest,
    ImageSource,
    Link,
    MaskChannel,
    ResizeMode,
)
from triton_diffusers.errors import InvalidImage
from triton_diffusers.images.inputs import ImageLoader
from triton_diffusers.settings import Settings


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def half_white(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 2, 0, width, height))
    return mask


RED = png(Image.new("RGB", (40, 20), "red"))
MASK = png(half_white(80, 40))


BODIES = {"https://example.com/red.png": RED, "https://example.com/mask.png": MASK}


def request_for(function: Function, **fields: Any) -> GenerationRequest:
    return GenerationRequest(task_id="a-task", prompt="", function=function, width=64, height=32, **fields)


def load(function: Function, bodies: Mapping[str, bytes] = BODIES, **fields: Any) -> Any:
    return ImageLoader(Settings(), bodies).load(request_for(function, **fields))


def controls(*images: ImageSource | None) -> tuple[ControlChoice, ...]:
    return tuple(ControlChoice(path="", image=image) for image in images)


def test_text_needs_no_images() -> None:
    assert load(Function.TEXT_TO_IMAGE, image=b"no image") is None


def test_text_may_be_controlled_by_the_image_that_comes_with_it() -> None:
    images = load(Function.TEXT_TO_IMAGE, image=RED, controls=controls(None, None))
    first, second = images.controls
    assert first is second
    assert (images.image, images.mask) == (None, None)
    assert (first.size, first.mode, first.getpixel((5, 5))) == ((64, 32), "RGB", (255, 0, 0))


@pytest.mark.parametrize("function", [Function.IMAGE_TO_IMAGE, Function.INPAINT])
def test_the_fitted_image_controls(function: Function) -> None:
    images = load(function, image=RED, mask=MASK, controls=controls(None), resize_mode=ResizeMode.PAD)
    assert images.controls == (images.image,)
    assert images.controls[0].getpixel((0, 0)) == (255, 255, 255)


def test_the_larger_canvas_controls_outpainting_unless_another_image_does() -> None:
    expansion = Expansion(left=8, right=0, up=16, down=0)
    images = load(Function.OUTPAINT, image=RED, expansion=expansion, controls=controls(None, MASK))
    assert images.controls[0] is images.image
    assert images.controls[1].size == (72, 48)
    assert images.controls[1].getpixel((0, 0)) == (0, 0, 0)


def test_each_control_image_is_fetched_once() -> None:
    red, mask = Link("https://example.com/red.png"), Link("https://example.com/mask.png")
    chosen = controls(red, mask, red, red)
    assert request_for(Function.TEXT_TO_IMAGE, controls=chosen).links == dict.fromkeys(BODIES, "control_image_link")
    images = load(Function.TEXT_TO_IMAGE, controls=chosen)
    assert images.controls[0] is images.controls[2] is images.controls[3]
    assert images.controls[1].getpixel((0, 0)) == (0, 0, 0)


def test_a_control_image_has_the_requests_size() -> None:
    images = load(Function.TEXT_TO_IMAGE, controls=controls(RED), resize_mode=ResizeMode.PAD)
    (image,) = images.controls
    assert (image.size, image.mode) == ((64, 32), "RGB")
    assert [image.getpixel(place) for place in ((0, 0), (32, 16))] == [(255, 255, 255), (255, 0, 0)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": None, "controls": controls(None)}, "^image: None is invalid: the request needs one"),
        ({"image": b"rubbish", "controls": controls(None)}, "^image: "),
        ({"image": DataUrl(b"rubbish"), "controls": controls(None)}, "^image_link: "),
        ({"controls": controls(DataUrl(b"rubbish"))}, "^control_image_link: "),
        ({"image": FromBase64(b"rubbish"), "controls": controls(None)}, "^image_base64: "),
        ({"controls": controls(RED, b"rubbish")}, "^control_image: "),
        ({"controls": controls(RED, FromBase64(b"rubbish"))}, "^control_image_base64: "),
    ],
)
def test_invalid_control_images_name_their_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        load(Function.TEXT_TO_IMAGE, **fields)


def test_an_image_is_the_same_however_it_came() -> None:
    images = load(Function.INPAINT, image=FromBase64(RED), mask=FromBase64(MASK), controls=controls(FromBase64(RED)))
    expected = load(Function.INPAINT, image=RED, mask=MASK, controls=controls(RED))
    assert (images.image, images.mask, images.controls) == (expected.image, expected.mask, expected.controls)


def test_an_image_has_the_requests_size_and_no_mask() -> None:
    images = load(Function.IMAGE_TO_IMAGE, image=RED, mask=b"is not looked at")
    assert (images.image.size, images.image.mode, images.mask) == ((64, 32), "RGB", None)
    assert (np.asarray(images.image) == [255, 0, 0]).all()


@pytest.mark.parametrize("mode", ResizeMode)
def test_inpainting_has_a_mask_that_lies_on_the_image(mode: ResizeMode) -> None:
    images = load(Function.INPAINT, image=RED, mask=MASK, resize_mode=mode)
    assert (images.mask.size, images.mask.mode) == ((64, 32), "L")
    columns = np.nonzero((np.asarray(images.mask) >= 128).any(axis=0))[0]
    last = 51 if mode is ResizeMode.PAD else 63
    assert (columns.min(), columns.max()) == (32, last)


def test_an_alpha_mask_repaints_what_is_transparent() -> None:
    mask = Image.new("RGBA", (80, 40), "white")
    mask.paste((255, 255, 255, 0), (40, 0, 80, 40))
    images = load(Function.INPAINT, image=RED, mask=png(mask), mask_channel=MaskChannel.ALPHA)
    assert images.mask.tobytes() == load(Function.INPAINT, image=RED, mask=MASK).mask.tobytes()


def test_unmasked_pixels_are_pasted_back_unless_the_request_does_not_want_it() -> None:
    assert load(Function.INPAINT, image=RED, mask=MASK).shown.size == (64, 32)
    assert load(Function.INPAINT, image=RED, mask=MASK, keep_unmasked=False).shown is None
    assert load(Function.IMAGE_TO_IMAGE, image=RED).shown is None


def test_outpainting_has_a_larger_canvas_and_its_mask() -> None:
    expansion = Expansion(left=8, right=0, up=16, down=0)
    images = load(Function.OUTPAINT, image=RED, expansion=expansion)
    assert images.image.size == images.mask.size == (72, 48)
    assert np.asarray(images.mask)[16:, 8:].max() == 0
    assert np.asarray(images.mask)[:16].min() == np.asarray(images.mask)[:, :8].min() == 255


def test_links_are_fetched_by_their_fields() -> None:
    red, mask = map(Link, BODIES)
    fields: dict[str, Any] = {"image": red, "mask": mask, "controls": controls(red, None, RED)}
    links = request_for(Function.INPAINT, **fields).links
    assert links == {red.url: "image_link", mask.url: "mask_link"}
    images = load(Function.INPAINT, **fields)
    assert images.image.getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": b"rubbish", "mask": MASK}, "^image: "),
        ({"image": RED, "mask": b"rubbish"}, "^mask: "),
        ({"image": RED, "mask": FromBase64(b"rubbish")}, "^mask_base64: "),
        ({"image": None, "mask": MASK}, "^image: None is invalid: the request needs one"),
        ({"image": RED, "mask": None}, "^mask: None is invalid: the request needs one"),
        ({"image": RED, "mask": png(Image.new("L", (9, 9), 127))}, "^mask: 'all black' .*nothing to repaint"),
        (
            {"image": RED, "mask": MASK, "mask_channel": MaskChannel.ALPHA},
            "^mask: 'all opaque' .*transparent parts are",
        ),
    ],
)
def test_invalid_images_name_their_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        load(Function.INPAINT, **fields)


def test_a_linked_image_that_is_none_names_the_link() -> None:
    url = "https://example.com/"
    with pytest.raises(InvalidImage, match=r"^image_link: "):
        load(Function.IMAGE_TO_IMAGE, {url: b"<html>"}, image=Link(url))
