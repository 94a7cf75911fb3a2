"""Jobs from HTTP to images, on a real server."""

from __future__ import annotations

import json
import signal
import socket
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.integration.calls import Calls, small
from tests.integration.conftest import RunningTriton
from tests.integration.gateway.conftest import Service

LONG: dict[str, Any] = {"steps": 100}


def running(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as soon as it has made a step."""
    return dict(service.wait(lambda: found if (found := service.job(job))["progress"]["step"] > 0 else None))


def test_a_job_gives_the_image_that_triton_gives(service: Service, triton: RunningTriton) -> None:
    (image,) = service.images(service.submit(seed=11))
    with closing(Calls(triton)) as calls:
        reply = calls.grpc(**small(steps=2, seed="11"))
    assert image == reply["images"][0]
    assert image.startswith(b"\x89PNG")


def test_the_references_clients_are_answered(service: Service) -> None:
    body = {"task_id": "test_1", "prompt": "一个红苹果", "steps": 2, "width": 64, "height": 64, "image_num": 2}
    reply = service.client.post(
        "/api/predict/diffuser_base_ch", content=json.dumps(body), headers={"Authorization": "t"}
    )
    answer = reply.json()
    assert (reply.status_code, answer["success"], answer["task_id"]) == (200, 1, "test_1")
    assert answer["prompt"].isascii()
    assert len(answer["image_url"]) == len(answer["oss_url"]) == len(answer["is_nsfw"]) == 2
    for url, place in zip(answer["image_url"], answer["oss_url"], strict=True):
        assert service.client.get(url).content == Path(place.removeprefix("file://")).read_bytes()


def test_an_error_of_the_model_is_told(service: Service) -> None:
    job = service.ended(service.submit(lora_path="missing.safetensors"))
    assert (job["state"], job["error"]["code"]) == ("failed", 460)
    assert "missing.safetensors" in job["error"]["message"]
    reply = service.client.post("/", json={"prompt": "a", "func_name": "i2i", "image_base64": "AAAA"})
    assert (reply.status_code, reply.json()["error_code"]) == (462, 462)


def test_progress_and_a_preview_can_be_followed(service: Service) -> None:
    job = service.submit(**LONG)
    events: list[str] = []
    with service.client.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                events.append(line.removeprefix("event: "))
            if events.count("progress") == 2:
                break
    assert events[:2] == ["queued", "running"]
    reply = service.client.get(f"/api/jobs/{job['id']}/preview?wait=30")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
    assert reply.content.startswith(b"\xff\xd8")
    service.client.post(f"/api/jobs/{job['id']}/cancel")
    assert service.ended(job)["state"] == "cancelled"


def test_a_cancelled_job_stops_on_triton(service: Service, triton: RunningTriton) -> None:
    job = service.submit(**LONG)
    running(service, job)
    service.client.post(f"/api/jobs/{job['id']}/cancel")
    assert service.ended(job)["state"] == "cancelled"
    with closing(Calls(triton)) as calls:
        assert calls.job(job["id"])["state"] == "cancelled"


def test_a_caller_who_hangs_up_cancels_the_job(service: Service) -> None:
    address = urlsplit(str(service.client.base_url))
    body = json.dumps({"task_id": "gone", "prompt": "a", "width": 64, "height": 64, **LONG}).encode()
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST /api/predict/a HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        (job,) = service.wait(lambda: service.client.get("/api/jobs?task_id=gone").json()["jobs"])
        running(service, job)
    assert service.ended(job)["state"] == "cancelled"


def test_a_killed_runners_job_is_finished_by_the_next_one_with_the_same_pixels(service: Service) -> None:
    fields = {"steps": 40, "seed": 5, "image_num": 2}
    undisturbed = service.images(service.submit(**fields))
    job = service.submit(**fields)
    running(service, job)
    assert service.end("runner-one", signal.SIGKILL) == -signal.SIGKILL
    assert service.job(job)["state"] == "running"
    service.start_runner("one")
    assert service.images(job) == undisturbed
    assert service.job(job)["attempts"] == 2
    assert len(list((service.folder / "results").rglob(f"*{job['id']}*"))) == 2


def test_a_stopped_runner_hands_its_job_to_another_one(service: Service) -> None:
    fields = {"steps": 60, "seed": 6}
    job = service.submit(**fields)
    running(service, job)
    service.start_runner("two")
    stopping = threading.Thread(target=service.end, args=("runner-one",))
    stopping.start()
    assert len(service.images(job)) == 1
    stopping.join()
    service.end("runner-two")
    service.start_runner("one")


def test_a_gateway_that_is_killed_loses_no_job(service: Service) -> None:
    job = service.submit(seed=12)
    service.end("gateway", signal.SIGKILL)
    service.start_gateway()
    assert len(service.images(job)) == 1
