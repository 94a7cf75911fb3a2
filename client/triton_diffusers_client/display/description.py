"""Progress in words."""

from __future__ import annotations

from triton_diffusers_client.progress import JobState, Progress


def describe(progress: Progress) -> str:
    """Return what a job does, such as ``queued, 3 ahead, about 20 s``."""
    words = [phase(progress)]
    if progress.state is JobState.QUEUED and progress.position is not None:
        words.append(f"{progress.position} ahead")
        if progress.wait_seconds is not None:
            words.append(f"about {progress.wait_seconds:.0f} s")
    elif progress.state is JobState.RUNNING and progress.steps:
        words.append(f"{progress.step}/{progress.steps} steps")
    return ", ".join(words)


def phase(progress: Progress) -> str:
    """Return the phase of a job in a word."""
    if progress.state is not JobState.RUNNING:
        return progress.state.value
    if progress.steps and progress.step >= progress.steps:
        return "decoding"
    return "drawing"
