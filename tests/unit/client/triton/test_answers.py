"""Generations, images and progress, from tensors."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from triton_diffusers_client import EncodedImage, Image, JobState, ServerError
from triton_diffusers_client.triton.answers import generation_from, progress_from


def encoded_image(name: str = "png", colour: str = "red") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 4), colour).save(file, name)
    return file.getvalue()


def text(*values: str | bytes) -> np.ndarray[Any, Any]:
    row = np.empty((1, len(values)), object)
    row[0, :] = [value.encode() if isinstance(value, str) else value for value in values]
    return row


def answer(**changes: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "success": np.array([[1]]),
        "task_id": text("a-task"),
        "seed": text(str(2**64 - 1)),
        "prompt": text("红苹果"),
        "images": text(encoded_image(), encoded_image()),
        "images_base64": text(),
        "image_url": text(),
        "oss_url": text(),
        "is_nsfw": np.array([[False, True]]),
        "parameters": text('{"steps": 20, "seed": "7"}'),
        "use_blade": np.array([[False]]),
        "profile": text("exact"),
        "warnings": text("words were cut"),
        "queue_seconds": np.array([[0.1]], np.float32),
        "run_seconds": np.array([[2.5]], np.float32),
    } | changes


def jobs(**changes: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "task_id": text("b", "a")[0],
        "model": text("sd_base", "sd_base")[0],
        "state": text("running", "failed")[0],
        "step": np.array([5, 0]),
        "steps": np.array([20, 0]),
        "image_num": np.array([2, 1]),
        "images_done": np.array([1, 0]),
        "elapsed_seconds": np.array([1.5, 0.1], np.float32),
        "error_msg": text("", "no")[0],
        "preview": text(base64.urlsafe_b64encode(b"\xff\xd8\xff"), "")[0],
    } | changes


def test_generation() -> None:
    generation = generation_from(answer())
    assert (generation.task_id, generation.seed, generation.prompt) == ("a-task", 2**64 - 1, "红苹果")
    assert (generation.queue_seconds, generation.run_seconds) == (0.1, 2.5)
    assert generation.warnings == ("words were cut",)
    assert generation.parameters == {"steps": 20, "seed": "7"}
    assert [image.is_nsfw for image in generation.images] == [False, True]


def test_each_image_has_the_seed_that_makes_it_alone() -> None:
    assert [image.seed for image in generation_from(answer()).images] == [2**64 - 1, 0]


def test_images_may_travel_as_base64() -> None:
    coded = text(*(base64.urlsafe_b64encode(encoded_image()) for _ in range(2)))
    generation = generation_from(answer(images=text(), images_base64=coded))
    assert [image.data for image in generation.images] == [encoded_image(), encoded_image()]


def test_control_images() -> None:
    assert generation_from(answer()).control_images == ()
    sent = text(*(base64.urlsafe_b64encode(encoded_image(colour=colour)) for colour in ("white", "black")))
    control_images = generation_from(answer(control_images_base64=sent)).control_images
    assert control_images == (EncodedImage(encoded_image(colour="white")), EncodedImage(encoded_image(colour="black")))
    assert control_images[1].pil().getpixel((0, 0)) == (0, 0, 0)


def test_a_reply_without_images_keeps_the_flags() -> None:
    generation = generation_from(answer(images=text()))
    assert generation.images == ()
    assert generation.is_nsfw == (False, True)


@pytest.mark.parametrize(
    "changes",
    [{"seed": text("x")}, {"is_nsfw": np.array([[True]])}, {"prompt": text(b"\xff")}, {"parameters": text("{")}],
)
def test_nonsense_is_the_servers_fault(changes: dict[str, Any]) -> None:
    with pytest.raises(ServerError):
        generation_from(answer(**changes))


@pytest.mark.parametrize(("name", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".WEBP")])
def test_an_image_is_saved_as_it_came(name: str, suffix: str, tmp_path: Path) -> None:
    image = Image(encoded_image(name), seed=1)
    path = image.save(tmp_path / f"apple{suffix}")
    assert path.read_bytes() == image.data
    assert image.format == name
    assert image.pil().size == (8, 4)


def test_a_file_name_must_not_lie(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="output_format='jpeg'"):
        Image(encoded_image("png"), seed=1).save(tmp_path / "apple.jpg")
    assert not list(tmp_path.iterdir())
    Image(encoded_image("png"), seed=1).save(tmp_path / "apple.bin")


def test_an_images_bytes_do_not_fill_the_terminal() -> None:
    assert len(repr(generation_from(answer()))) < 1000


def test_progress() -> None:
    first, second = progress_from(jobs())
    assert (first.task_id, first.state, first.step, first.steps) == ("b", JobState.RUNNING, 5, 20)
    assert (first.fraction, first.preview, first.elapsed_seconds) == (0.25, EncodedImage(b"\xff\xd8\xff"), 1.5)
    assert (second.fraction, second.preview, second.error_msg) == (0.0, None, "no")
    assert [job.state.ended for job in (first, second)] == [False, True]


@pytest.mark.parametrize("changes", [{"state": text("odd", "odd")[0]}, {"step": np.array([1])}])
def test_progress_that_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(ServerError):
        progress_from(jobs(**changes))


def test_an_empty_job_list_is_read() -> None:
    assert progress_from({name: column[:0] for name, column in jobs().items()}) == []
