"""The custom metrics, by family: what each measures, in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """One metric; ``labels`` are those beside ``model``, which all have."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "requests": Family("sd_requests_total", "counter", "Requests answered, by outcome", ("outcome",)),
    "images": Family("sd_images_total", "counter", "Images made"),
    "steps": Family("sd_image_steps_total", "counter", "Denoising steps, counted for each image"),
    "calls": Family(
        "sd_unet_calls_total", "counter", "UNet calls, by the number of images that shared the call", ("images",)
    ),
    "call_seconds": Family("sd_unet_seconds_total", "counter", "Seconds in UNet calls and scheduler steps"),
    "queue_seconds": Family(
        "sd_request_queue_seconds_total", "counter", "Seconds from arrival to admission, all requests together"
    ),
    "run_seconds": Family(
        "sd_request_run_seconds_total", "counter", "Seconds from admission to the answer, all requests together"
    ),
    "in_flight": Family("sd_images_in_flight", "gauge", "Images that are being made now"),
    "queued": Family("sd_requests_queued", "gauge", "Requests that wait for admission"),
    "engine": Family(
        "sd_engine_serves", "gauge", "1 for the engine that makes the steps now, 0 for one that has", ("engine",)
    ),
    "optimizer": Family(
        "sd_optimizer_state", "gauge", "1 for the state of the background build, 0 for the others", ("state",)
    ),
}
