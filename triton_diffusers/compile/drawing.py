"""Generate images with an engine by the loop that serves requests, and measure its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.probes import CONTROLNET_FILE, write_controlnet, write_lora
from triton_diffusers.compile.tasks import Advance, DrawResult
from triton_diffusers.engines import Engine
from triton_diffusers.errors import TritonDiffusersError
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.inflight.telemetry import NoTelemetry
from triton_diffusers.settings import Settings

_POLL_SECONDS = 0.5  # between two reports of progress
_STATUS = Path("/proc/self/status")

# Makes the requests once the engine is loaded; the argument is the side of its images in pixels.
MakeRequests = Callable[[int], Mapping[str, GenerationRequest]]


def draw(
    make_engine: Callable[[], Engine], make_requests: MakeRequests, folder: Path, side: int, advance: Advance
) -> DrawResult:
    """Generate the requests' images one after another into ``folder``, as ``<name>-<number>.png``.

    ``side`` 0 is the model's own. LoRAs and ControlNets are looked up in ``folder``, where those of the probes are
    written. Requests with ControlNets come last and do not count for the peak memory.

    Raises: BuildError: an image cannot be generated.
    """
    engines: list[Engine] = []

    def made() -> Engine:
        engine = make_engine()
        write_lora(folder, engine.lora_targets)
        engines.append(engine)
        return engine

    steps = _Steps(advance)
    # The folder stands in for the model directory, which may be read-only: the loop looks up only these two there.
    loop = EngineLoop(made, Settings(model_dir=folder, store="", close_safety=True), name="build", telemetry=steps)
    loop.start()
    try:
        side = side or loop.defaults.side
        requests = make_requests(side)
        steps.total = sum(request.steps * request.image_num for request in requests.values())
        controlled = {name for name, request in requests.items() if request.controls}
        files = {name: _draw(loop, name, requests[name], folder) for name in requests if name not in controlled}
        peak = peak_bytes()
        if controlled:
            (engine,) = engines
            write_controlnet(folder, engine.family)
            files |= {name: _draw(loop, name, requests[name], folder) for name in requests if name in controlled}
    finally:
        loop.stop()
        (folder / CONTROLNET_FILE).unlink(missing_ok=True)  # nearly as large as the model
    return DrawResult(files=files, side=side, peak_bytes=peak)


def peak_bytes() -> int:
    """Return the peak resident memory of this process, in bytes."""
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def failure_message(job: Job) -> str:
    """Return why a job failed; its cause, hidden from callers, is useful to the operator."""
    error = (job.error and job.error.__cause__) or job.error
    return str(error) if isinstance(error, TritonDiffusersError) else f"{type(error).__name__}: {error}"


def _draw(loop: EngineLoop, name: str, request: GenerationRequest, folder: Path) -> list[str]:
    job = loop.submit(request)
    while not job.state.ended:
        loop.wait([job], _POLL_SECONDS)
    if job.result is None:
        raise BuildError(f"the image {name!r} cannot be generated: {failure_message(job)}")
    names = [f"{name}-{number}.png" for number in range(len(job.result.images))]
    for file, image in zip(names, job.result.images, strict=True):
        (folder / file).write_bytes(image)
    return names


class _Steps(NoTelemetry):
    """Counts steps and reports progress."""

    def __init__(self, advance: Advance) -> None:
        self.total = 0
        self._advance = advance
        self._done = 0

    def unet_called(self, images: int, seconds: float) -> None:
        self._done += images
        self._advance(min(self._done, self.total), self.total)
