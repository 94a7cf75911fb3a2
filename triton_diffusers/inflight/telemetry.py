"""What the engine loop counts; who shows it is decided elsewhere."""

from __future__ import annotations

from typing import Protocol


class Telemetry(Protocol):
    """Receives the loop's events. Called by the loop's threads; must not block or raise."""

    def request_ended(self, outcome: str, queue_seconds: float, run_seconds: float) -> None:
        """A request was answered; ``outcome`` is the job's last state."""

    def images_made(self, count: int) -> None:
        """Images were finished."""

    def unet_called(self, images: int, seconds: float) -> None:
        """One UNet call advanced so many images by a step."""

    def in_flight(self, images: int, queued: int) -> None:
        """So many images are in flight now, and so many requests wait."""


class NoTelemetry:
    """Counts nothing."""

    def request_ended(self, outcome: str, queue_seconds: float, run_seconds: float) -> None: ...

    def images_made(self, count: int) -> None: ...

    def unet_called(self, images: int, seconds: float) -> None: ...

    def in_flight(self, images: int, queued: int) -> None: ...
