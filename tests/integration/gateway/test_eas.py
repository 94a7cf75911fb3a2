"""PAI's services on a real server: by plain calls, and by Alibaba Cloud's own package."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.integration.conftest import RunningTriton
from tests.integration.gateway.conftest import WITHIN, Service
from tests.integration.gateway.packages import python_client
from tests.unit.gateway.eas.wire import ReceivedFrame, read_frame, read_frames

PACKAGE = "eas-prediction==0.36"
TOKEN = "NDJkZjY2ODYx"
PATH = "/api/predict/draw_async"
SMALL: dict[str, Any] = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 7}
LONG = {**SMALL, "steps": 100}


@pytest.fixture(scope="module")
def eas(triton: RunningTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a gateway with services that have tokens, and a runner."""
    settings = {
        "TRITON_DIFFUSERS_GATEWAY_SERVICES": f"draw=ensemble:sync:{TOKEN},draw_async=:async:{TOKEN}",
        "TRITON_DIFFUSERS_GATEWAY_LEAVE_SECONDS": "60",
    }
    started = Service(tmp_path_factory.mktemp("eas"), triton, settings)
    started.client.headers["Authorization"] = TOKEN
    try:
        started.start_gateway()
        # One after the other, so that there is a queue.
        started.start("runner", "runner", f"--triton={triton.grpc_url}", "--name=one", "--max-images=1")
        yield started
    finally:
        started.close()


def put(eas: Service, query: str = "", **fields: Any) -> str:
    """Queue a request as the SDK does; return its id."""
    reply = eas.client.post(f"{PATH}{query}", content=json.dumps({**SMALL, **fields}))
    assert reply.status_code == 200, reply.text
    assert reply.text.isdecimal()
    return str(reply.headers["X-Eas-Queueservice-Request-Id"])


@contextmanager
def watching(eas: Service, uid: str, **query: Any) -> Iterator[ClientConnection]:
    """Watch the sink; the connection is then cut, as the SDK does."""
    url = httpx2.URL(str(eas.client.base_url), scheme="ws", path=f"{PATH}/sink")
    given = {"_watch_": "true", "_index_": "0", "_window_": "1", **query}
    headers = {"Authorization": TOKEN, "X-EAS-QueueService-Redis-Uid": uid, "Accept": "application/vnd.google.protobuf"}
    with connect(str(url.copy_merge_params(given)), additional_headers=headers, open_timeout=WITHIN) as connection:
        try:
            yield connection
        finally:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)


def received(connection: ClientConnection) -> ReceivedFrame:
    """Return the next result."""
    message = connection.recv(timeout=WITHIN)
    assert isinstance(message, bytes)
    return read_frame(message)


def commit(eas: Service, frame: ReceivedFrame) -> None:
    reply = eas.client.put(f"{PATH}/sink?_indexes_={frame.index}")
    assert (reply.status_code, reply.text) == (200, "OK")


def length(eas: Service, path: str = f"{PATH}/sink") -> int:
    return int(eas.client.get(f"{path}?_attrs_=true").json()["stream.length"])


def test_queued_requests_are_drawn_and_sent(eas: Service) -> None:
    ids = [
        put(eas, "?color=red", task_id="one", prompt="一个红苹果", seed="11", image_num=2),
        put(eas, task_id="two", lora_path="missing.safetensors"),
        put(eas, task_id="three"),
    ]
    found = {}
    with watching(eas, "a") as connection:
        for _ in ids:
            frame = received(connection)
            found[frame.tags["requestId"]] = frame.reply
            commit(eas, frame)
    one, two, three = (found[each] for each in ids)
    assert (one["success"], one["task_id"], one["seed"], one["is_nsfw"]) == (1, "one", "11", [False, False])
    assert one["prompt"].isascii()
    for url, place in zip(one["image_url"], one["oss_url"], strict=True):
        assert eas.client.get(url).content == Path(place.removeprefix("file://")).read_bytes()
    assert (two["success"], two["error_code"], two["task_id"]) == (0, 460, "two")
    assert "missing.safetensors" in two["error_msg"]
    assert three["success"] == 1
    eas.wait(lambda: length(eas) == 0)


def test_a_result_is_polled_by_its_id(eas: Service) -> None:
    job_id = put(eas, task_id="polled")
    query = {"requestId": job_id, "_raw_": "false", "_auto_delete_": "true", "_timeout_": "5s"}
    headers = {"Accept": "application/vnd.google.protobuf"}

    def poll() -> list[ReceivedFrame]:
        reply = eas.client.get(f"{PATH}/sink", params=query, headers=headers)
        assert reply.status_code in (200, 204)
        return read_frames(reply.content)

    (frame,) = eas.wait(poll)
    assert frame.reply["task_id"] == "polled"
    assert length(eas) == 0


def test_a_gateway_that_is_killed_keeps_both_queues(eas: Service) -> None:
    ids = [put(eas, task_id="first"), put(eas, **{**LONG, "task_id": "second"}), put(eas, task_id="third", image_num=2)]
    port = httpx2.URL(str(eas.client.base_url)).port
    assert port is not None
    with watching(eas, "survivor", _window_="5") as connection:
        before = received(connection)
        eas.end("gateway", signal.SIGKILL)
    eas.start_gateway(port)
    with watching(eas, "survivor", _window_="5") as connection:
        frames = {}
        while len(frames) < 3:
            frame = received(connection)
            frames[frame.tags["requestId"]] = frame
    assert frames.keys() == set(ids)
    assert before.index in {frame.index for frame in frames.values()}
    for frame in frames.values():
        commit(eas, frame)
    assert length(eas) == length(eas, PATH) == 0


def sdk(eas: Service, *words: str) -> subprocess.Popen[str]:
    """Start a part of the client script."""
    return subprocess.Popen(
        [*python_client("eas_client.py", PACKAGE), str(eas.client.base_url).rstrip("/"), TOKEN, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


def outcome(client: subprocess.Popen[str]) -> Any:
    """Return what the script has printed."""
    printed, _ = client.communicate(timeout=WITHIN * 3)
    assert client.returncode == 0, printed
    return json.loads(printed.splitlines()[-1])


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_the_sdks_slow_synchronous_call_draws_once(eas: Service) -> None:
    reply = outcome(sdk(eas, "slow"))
    assert (reply["success"], reply["task_id"]) == (1, "slow")
    assert len(eas.client.get("/api/jobs?task_id=slow").json()["jobs"]) == 1
    pattern = 'sd_gateway_requests_total{route="/api/predict/{name}",status="499"}'
    lines = eas.client.get("/metrics").text.splitlines()
    (given_up,) = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(pattern)]
    assert given_up >= 1, "it was not sent again"


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_the_sdk_posts_and_watches(eas: Service) -> None:
    found = outcome(sdk(eas, "queue"))
    assert found["posted"].isdecimal()
    assert [result["success"] for result in found["watched"]] == [1] * 3
    assert [result["task_id"] for result in found["watched"]] == ["async"] * 3
    assert found["ids"] == found["put_ids"]
    assert found["second_watcher"] == [400, "Another watcher is already running"]
    assert found["by_id"] == "by-id"
    assert found["nothing"] == 0
    assert found["search"] == {"IsPending": False, "WaitCount": found["search"]["WaitCount"]}
    assert found["search"]["WaitCount"] >= 1
    assert found["unknown"] == {}
    assert found["after_commit"] == found["after_auto_commit"] == found["after_truncate"] == "0"
    assert found["tagged"] == ["red"]
    assert found["first"] == "urgent"
    assert found["refused"][0] == 401


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_the_sdk_watches_on_after_the_gateway_was_killed(eas: Service) -> None:
    client = sdk(eas, "long")
    assert client.stdout is not None
    assert client.stdout.readline() == "queued\n"
    port = httpx2.URL(str(eas.client.base_url)).port
    assert port is not None
    eas.end("gateway", signal.SIGKILL)
    eas.start_gateway(port)
    found = outcome(client)
    assert sorted(found["received"]) == sorted(found["put"])
    assert length(eas) == 0
