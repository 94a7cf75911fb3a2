"""Telemetry interface of the engine loop."""

from __future__ import annotations

from typing import Protocol


class Telemetry(Protocol):
    """Receiver of the loop's events, called by its threads; must not block or raise."""

    def request_ended(self, model: str, outcome: str, queue_seconds: float, run_seconds: float) -> None:
        """Count a request with its final job state."""

    def images_made(self, model: str, count: int) -> None:
        """Count finished images."""

    def steps_made(self, model: str, count: int) -> None:
        """Count steps, each of one image."""

    def unet_called(self, images: int, seconds: float) -> None:
        """Count a UNet call that advanced this number of images."""

    def in_flight(self, images: int, queued: int) -> None:
        """Set the current numbers of images in flight and of queued requests."""


class NoTelemetry:
    """Telemetry that discards all events."""

    def request_ended(self, model: str, outcome: str, queue_seconds: float, run_seconds: float) -> None: ...

    def images_made(self, model: str, count: int) -> None: ...

    def steps_made(self, model: str, count: int) -> None: ...

    def unet_called(self, images: int, seconds: float) -> None: ...

    def in_flight(self, images: int, queued: int) -> None: ...
