"""Output of a start: a few lines, and calls that work as printed."""

from __future__ import annotations

import http.client
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.integration.conftest import RunningTriton, TritonStarter
from tests.integration.serve.waiting import until_logged
from tests.waiting import WITHIN

MAX_LINES = 10
SLOW_MACHINE = "still loading models"  # a line every half minute


def test_a_start_is_ten_lines_and_every_offered_call_works(start_triton: TritonStarter) -> None:
    server = start_triton(args=["--func-name=all", "--log-level=info", f"--log-file={start_triton.folder / 'full'}"])
    until_logged(server, "results: ")  # its last line, which it prints when programs may call it already
    shown = [line for line in server.log_text().splitlines() if SLOW_MACHINE not in line]
    assert len(shown) <= MAX_LINES, shown
    assert sum(line.endswith(" NOTICE engine 0: eager serves on cpu") for line in shown) == 1, "both models share it"
    assert str(start_triton.folder / "full") in shown[-1]
    full = (start_triton.folder / "full").read_text(encoding="utf-8")
    assert "Started HTTPService" in full
    assert all(line in full for line in shown if line.startswith("triton-diffusers: "))
    calls = [shlex.split(line) for line in shown if line.startswith("  curl ")]
    assert [urlsplit(url).path.split("/")[3] for _, url, _, _ in calls] == ["ensemble", "ensemble_controlnet"]
    for _, url, _, body in calls:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=WITHIN)
        connection.request("POST", urlsplit(url).path, body)  # what curl does with -d
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read()).get("success")) == (200, 1), url
        connection.close()


def test_a_failed_start_shows_the_reason_last_and_where_the_log_is(
    start: Callable[..., RunningTriton], repository: Path, tmp_path: Path
) -> None:
    (repository / "mirror" / "broken").touch()
    server = start("--log-level=info", f"--log-file={tmp_path / 'full'}", wait=False)
    assert server.process.wait(timeout=WITHIN) == 2
    shown = server.log_text().splitlines()
    assert shown[-1].startswith("triton-diffusers: tritonserver did not start: model mirror failed to load: ")
    assert shown[-1].endswith("told to be broken")
    assert str(tmp_path / "full") in shown[-2]
    assert len(shown) <= MAX_LINES, shown
    assert "told to be broken" in (tmp_path / "full").read_text(encoding="utf-8")
