"""Progress in a notebook: one output that is updated in place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from triton_diffusers_client import EncodedImage, Generation, Image, Job, JobState, Progress
from triton_diffusers_client.display.notebook import to_html
from triton_diffusers_client.display.terminal import ProgressBar
from triton_diffusers_client.display.watcher import show

RUNNING = Progress(id="j", task_id="t", model="m", state=JobState.RUNNING, step=5, steps=20)
ENDED = Progress(id="j", task_id="t", model="m", state=JobState.SUCCEEDED, step=20, steps=20)


class FakeIPython(ModuleType):
    """IPython as far as the display needs it: its outputs, and the updates of the first one."""

    def __init__(self, shell: Any) -> None:
        super().__init__("IPython")
        self.shown: list[str] = []
        self.updates: list[str] = []
        self.get_ipython = lambda: shell
        self.display = ModuleType("IPython.display")
        self.display.HTML = str  # type: ignore[attr-defined]
        self.display.display = self._display  # type: ignore[attr-defined]

    def _display(self, output: str, *, display_id: bool) -> Any:
        assert display_id
        self.shown.append(output)
        return SimpleNamespace(update=self.updates.append)


def install(monkeypatch: pytest.MonkeyPatch, shell: Any) -> FakeIPython:
    made = FakeIPython(shell)
    monkeypatch.setitem(sys.modules, "IPython", made)
    monkeypatch.setitem(sys.modules, "IPython.display", made.display)
    return made


class FakeJob(Job):
    id = task_id = "j"
    asked_for_previews = False

    def progress(self, *, previews: bool = False) -> Iterator[Progress]:
        self.asked_for_previews = previews
        yield from (RUNNING, ENDED)

    def result(self, timeout: float | None = None) -> Any:
        return "the result"

    status = wait = cancel = delete = None  # type: ignore[assignment]


def test_a_watched_job_updates_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = install(monkeypatch, SimpleNamespace(kernel=object()))
    job = FakeJob()
    assert job.watch() == "the result"
    assert job.asked_for_previews
    assert [len(ipython.shown), len(ipython.updates)] == [1, 1]
    assert "drawing, 5/20 steps" in ipython.shown[0]
    assert "succeeded" in ipython.updates[0]


@pytest.mark.parametrize("shell", [None, SimpleNamespace(kernel=None)])
def test_ipython_on_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, shell: Any) -> None:
    install(monkeypatch, shell)
    assert isinstance(show(), ProgressBar)


def test_a_program_without_ipython_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    job = FakeJob()
    assert job.watch() == "the result"
    assert not job.asked_for_previews
    assert "IPython" not in sys.modules


def test_what_the_server_says_is_escaped() -> None:
    job = Progress(id="j", task_id="t", model="m", state=JobState.FAILED, error_msg="<script>alert(1)</script>")
    html = to_html(job)
    assert "<script>" not in html
    assert "failed: &lt;script&gt;" in html


def test_a_preview_is_shown_below_the_bar() -> None:
    preview = EncodedImage(b"\xff\xd8\xff")
    html = to_html(Progress(id="j", task_id="t", model="m", state=JobState.RUNNING, step=1, steps=4, preview=preview))
    assert '<progress value="1" max="4">' in html
    assert 'src="data:image/jpeg;base64,/9j/"' in html


def test_images_and_results_show_themselves() -> None:
    png, webp = Image(b"\x89PNG", seed=1), EncodedImage(b"RIFF1234WEBP")
    assert (png._repr_png_(), png._repr_html_()) == (b"\x89PNG", None)
    assert "data:image/webp;base64," in (webp._repr_html_() or "")
    result = Generation(
        task_id="t", seed=1, prompt="", images=(png, png), image_url=(), oss_url=(), is_nsfw=(False, False),
        parameters={}, use_blade=False, profile="exact", warnings=(), queue_seconds=0.0, run_seconds=0.0,
    )  # fmt: skip
    assert result._repr_html_().count('<img src="data:image/png;base64,') == 2
