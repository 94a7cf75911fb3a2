"""The custom metrics, by family: what each measures, in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``labels``: ``model`` is that of the request, ``worker`` the number of the engine process."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...]


FAMILIES: Mapping[str, Family] = {
    "requests": Family("sd_requests_total", "counter", "Requests answered, by outcome", ("model", "outcome")),
    "images": Family("sd_images_total", "counter", "Images made", ("model",)),
    "steps": Family("sd_image_steps_total", "counter", "Denoising steps, counted for each image", ("model",)),
    "calls": Family(
        "sd_unet_calls_total",
        "counter",
        "UNet calls, by the number of images that shared the call",
        ("worker", "images"),
    ),
    "call_seconds": Family(
        "sd_unet_seconds_total", "counter", "Seconds in UNet calls and scheduler steps", ("worker",)
    ),
    "queue_seconds": Family(
        "sd_request_queue_seconds_total",
        "counter",
        "Seconds from arrival to admission, all requests together",
        ("model",),
    ),
    "run_seconds": Family(
        "sd_request_run_seconds_total",
        "counter",
        "Seconds from admission to the answer, all requests together",
        ("model",),
    ),
    "in_flight": Family("sd_images_in_flight", "gauge", "Images that are being made now", ("worker",)),
    "queued": Family("sd_requests_queued", "gauge", "Requests that wait for admission", ("worker",)),
    "engine": Family(
        "sd_engine_serves",
        "gauge",
        "1 for the engine that makes the steps now, 0 for one that has",
        ("worker", "engine"),
    ),
    "optimizer": Family(
        "sd_optimizer_state",
        "gauge",
        "1 for the state of the background build, 0 for the others",
        ("worker", "state"),
    ),
}
