"""Small models generate at their own size and enlarge; sizes far from it are a warning."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import ROOT, finish, request_for
from tests.unit.fake_engine import FAMILY, FakeEngine
from tests.unit.loops import StartLoop, images_of
from triton_diffusers.api.request import Expansion, Function, ModelDefaults
from triton_diffusers.checkpoints.load import LoadError
from triton_diffusers.images.encode import resized
from triton_diffusers.inflight.drawing_file import DrawingFile
from triton_diffusers.inflight.sizes import DrawnSizes
from triton_diffusers.settings import Settings

NATIVE = 64  # of the fake engine


def sizes(native: int = NATIVE, **settings: Any) -> DrawnSizes:
    engine = FakeEngine()
    engine.family = replace(FAMILY, defaults=ModelDefaults(side=native))
    made = Settings(**settings)
    return DrawnSizes(engine, made, DrawingFile.read(made.model_folder))


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((512, 512), (64, 64)),
        ((1024, 512), (96, 48)),
        ((64, 64), (64, 64)),
        ((40, 50), (40, 56)),
        ((2048, 16), (1024, 8)),
    ],
)
def test_larger_images_are_drawn_at_the_models_own_area(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    request = request_for(width=size[0], height=size[1])
    assert sizes(enlarge="on").drawn(request) == drawn
    upright = request_for(width=size[1], height=size[0])
    assert sizes(enlarge="on").drawn(upright) == drawn[::-1]


def test_the_aspect_ratio_is_kept_where_it_can_be() -> None:
    own = sizes(128, enlarge="on")
    assert own.drawn(request_for(width=512, height=512)) == (128, 128)
    assert own.drawn(request_for(width=512, height=256)) == (176, 88)
    assert own.drawn(request_for(width=512, height=768)) == (104, 160)


def test_other_models_use_the_requested_size(tmp_path: Path) -> None:
    request = request_for(width=512, height=500)
    for settings in ({"enlarge": "off", "model_dir": ROOT / "models" / "emoji"}, {"model_dir": tmp_path}):
        assert sizes(**settings).drawn(request) == (512, 504)


@pytest.mark.parametrize(("content", "enlarges"), [({"enlarge": True}, True), ({"enlarge": False}, False), ({}, False)])
def test_the_model_directory_says_whether_to_enlarge(tmp_path: Path, content: Any, enlarges: bool) -> None:
    (tmp_path / "drawing.json").write_text(json.dumps(content))
    request = request_for(width=512, height=512)
    assert sizes(model_dir=tmp_path).is_enlarged(request) is enlarges
    assert not sizes(model_dir=tmp_path, enlarge="off").is_enlarged(request)


def test_the_emoji_model_enlarges() -> None:
    assert sizes(model_dir=ROOT / "models" / "emoji").is_enlarged(request_for(width=512, height=512))


@pytest.mark.parametrize("content", ["{", "[]", '{"enlarge": "yes"}', '{"enlarged": true}', "\udcff"])
def test_invalid_drawing_json_is_an_error(tmp_path: Path, content: str) -> None:
    (path := tmp_path / "drawing.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(LoadError, match=f"^{path} (cannot be read|is invalid: )|^{path}: enlarge: "):
        sizes(model_dir=tmp_path)


@pytest.mark.parametrize(
    ("size", "is_far"),
    [
        ((512, 512), False),
        ((512, 768), False),
        ((768, 768), False),
        ((256, 256), False),
        ((1024, 512), False),
        ((776, 768), True),
        ((1024, 1024), True),
        ((1032, 256), True),
        ((256, 248), True),
    ],
)
def test_size_far_from_the_models_own_is_a_warning(size: tuple[int, int], is_far: bool) -> None:
    said = sizes(512, enlarge="off").warnings(request_for(width=size[0], height=size[1]))
    expected = (
        f"width × height: {size[0]}×{size[1]} is far from 512×512, this model's training size; expect poor images"
    )
    assert said == ([expected] if is_far else [])


def test_an_enlarged_image_is_the_one_of_the_models_own_size(start_loop: StartLoop) -> None:
    """Compare with an image at the model's own size; file metadata and reply name the sampling size."""
    own, large = start_loop(FakeEngine()), start_loop(FakeEngine(), enlarge="on")
    finish(own, small := own.submit(request_for(image_num=2)))
    finish(large, job := large.submit(request_for(image_num=2, width=256, height=256, embed_metadata=True)))
    for before, after in zip(images_of(small), images_of(job), strict=True):
        expected = resized(np.asarray(Image.open(io.BytesIO(before))), (256, 256))
        image = Image.open(io.BytesIO(after))
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert "Size: 256x256, Drawn size: 64x64" in image.info["parameters"]
        record = json.loads(image.info["triton_diffusers"])
        assert (record["drawn_size"], record["request"]["width"]) == ([64, 64], 256)
    assert job.result is not None
    assert job.result.warnings == (
        "width × height: 256×256 is generated at 64×64, near this model's size, and enlarged",
    )


def png(size: tuple[int, int], color: str, *, white: int = 0) -> bytes:
    """Return an image of one colour with ``white`` columns on the left."""
    image = Image.new("RGB", size, color)
    image.paste("white", (0, 0, white, size[1]))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"function": Function.IMAGE_TO_IMAGE}, (256, 256)),
        ({"function": Function.INPAINT, "mask": png((256, 256), "black", white=64)}, (256, 256)),
        ({"function": Function.OUTPAINT, "expansion": Expansion(left=128, right=128, up=0, down=0)}, (512, 256)),
    ],
)
def test_input_images_are_drawn_over_at_the_models_own_size(
    start_loop: StartLoop, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    """Paste unmasked pixels back from the input image at its full size."""

    class Watched(FakeEngine):
        encoded: list[tuple[int, ...]]

        def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> Any:
            self.encoded.append(pixels.shape)
            return super().encode(pixels)

    engine = Watched()
    engine.encoded = []
    loop = start_loop(engine, enlarge="on")
    finish(loop, job := loop.submit(request_for(image=png((256, 256), "orange"), width=256, height=256, **fields)))
    (data,) = images_of(job)
    image = Image.open(io.BytesIO(data))
    assert image.size == size
    assert engine.encoded == [(3, 64, 64) if size == (256, 256) else (3, 48, 96)]
    if fields["function"] is not Function.IMAGE_TO_IMAGE:
        assert image.convert("RGB").getpixel((size[0] // 2, 128)) == (255, 165, 0)
