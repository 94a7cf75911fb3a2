"""Exchanges with a gateway that fails, of the client that blocks: retries, jobs that are given up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import httpx2
import pytest

from tests.unit.client.gateway.conftest import Answer, Script, fault, job, shown
from triton_diffusers_client import (
    BusyError,
    CancelledError,
    Client,
    InvalidRequestError,
    NotAuthorizedError,
    RequestTimeoutError,
    ServerError,
    UnreachableError,
    WrongProtocolError,
)


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.ReadError("reset"),
        httpx2.ReadTimeout("slow"),
        fault(503, "the table is away"),
        httpx2.Response(502, text="bad gateway"),
        httpx2.Response(504, text="timeout"),
    ],
)
def test_a_repeated_submission_is_one_job(script: Script, client: Client, failure: Answer) -> None:
    script.answers = [shown(), failure, failure, shown("queued", 202)]
    client.progress("j")
    assert client.submit("an apple").id == "j"
    first, *others = script.requests[1:]
    assert len(others) == 2
    keys = {request.headers["idempotency-key"] for request in script.requests[1:]}
    assert len(keys) == 1
    assert {request.content for request in others} == {first.content}
    assert json.loads(first.content)["seed"].isdecimal()
    assert script.pauses[1] > script.pauses[0] > 0


def test_a_busy_gateway_is_asked_again_when_it_says(script: Script, client: Client) -> None:
    script.answers = [fault(429, "too many jobs", {"Retry-After": "30"}), shown("queued", 202)]
    client.submit("an apple")
    assert script.pauses == [30.0]
    script.answers = [fault(429, "too many jobs", {"Retry-After": "30"})]
    with pytest.raises(BusyError, match="too many jobs") as caught:
        client.progress("j", timeout=1)
    assert caught.value.retry_after == 30


def test_two_submissions_are_two_jobs(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), shown("queued", 202)]
    client.submit("an apple", seed=1)
    client.submit("an apple", seed=1)
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 2


def test_an_error_of_the_request_is_not_repeated(script: Script, client: Client) -> None:
    script.answers = [fault(400, "steps: 0 is invalid: no", field="steps", value="0", rule="no")]
    with pytest.raises(InvalidRequestError) as caught:
        client.generate("an apple", steps=0)
    assert (caught.value.field, caught.value.value, caught.value.rule) == ("steps", "0", "no")
    assert script.calls == ["POST /api/jobs"]


def test_images_are_asked_for_where_the_gateway_was_reached(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), shown("succeeded"), httpx2.Response(200, content=b"\x89PNG")]
    generation = client.generate("an apple")
    assert (generation.images[0].data, generation.images[0].seed) == (b"\x89PNG", 7)
    last = script.requests[-1]
    assert str(last.url) == "http://gateway:8080/api/jobs/j/images/0.png?signature=s"
    assert last.headers["authorization"] == "Bearer secret"


def test_the_key_goes_to_no_other_host(script: Script, client: Client) -> None:
    document = job("succeeded")
    document["result"]["images"][0]["url"] = "https://bucket.example/a.png"
    script.answers = [httpx2.Response(200, json=document), httpx2.Response(200, content=b"\x89PNG")]
    client.job("j").result()
    assert script.requests[-1].url.host == "bucket.example"
    assert "authorization" not in script.requests[-1].headers
    assert "secret" not in repr(client)


def test_images_that_nobody_wants_are_not_fetched(script: Script, client: Client) -> None:
    script.answers = [shown("succeeded", 202)]
    generation = client.generate("an apple", return_images=False)
    assert (generation.images, generation.is_nsfw, len(script.calls)) == ((), (False,), 1)


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), SystemExit()])
def test_an_interrupted_submission_is_found_by_its_key_and_cancelled(
    script: Script, client: Client, ending: BaseException
) -> None:
    script.answers = [ending, shown("queued", 202), shown("cancelled")]
    with pytest.raises(type(ending)):
        client.generate("an apple")
    assert script.calls == ["POST /api/jobs", "POST /api/jobs", "POST /api/jobs/j/cancel"]
    assert script.requests[0].headers["idempotency-key"] == script.requests[1].headers["idempotency-key"]


def test_an_interrupted_wait_cancels_the_job(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), KeyboardInterrupt(), shown("running")]
    with pytest.raises(KeyboardInterrupt):
        client.generate("an apple")
    assert script.calls[-1] == "POST /api/jobs/j/cancel"


def test_a_gateway_that_is_away_does_not_hide_the_interruption(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), KeyboardInterrupt(), httpx2.ConnectError("refused")]
    with pytest.raises(KeyboardInterrupt):
        client.generate("an apple")


def test_an_interrupted_wait_for_a_job_in_the_background_leaves_it(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), KeyboardInterrupt()]
    handle = client.submit("an apple")
    with pytest.raises(KeyboardInterrupt):
        handle.result()
    assert script.calls == ["POST /api/jobs", "GET /api/jobs/j"]


def test_a_deletion_whose_answer_was_lost_has_happened(script: Script, client: Client) -> None:
    script.answers = [shown("failed"), shown("failed"), httpx2.ReadError("reset"), fault(404, "no such job")]
    client.job("j").delete()
    assert script.calls[-2:] == ["DELETE /api/jobs/j"] * 2


@pytest.mark.parametrize(
    ("state", "kind"),
    [("cancelled", CancelledError), ("expired", RequestTimeoutError), ("dead", ServerError), ("failed", ServerError)],
)
def test_each_end_without_a_result_is_an_error(
    script: Script, client: Client, state: str, kind: type[Exception]
) -> None:
    script.answers = [shown(state)]
    with pytest.raises(kind, match=r"^job j: it ") as caught:
        client.job("j").result()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<h1>hello</h1>"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={}),
        shown("odd"),
        httpx2.Response(307, headers={"location": "https://elsewhere.example/"}),
    ],
)
def test_nonsense_is_the_servers_fault(script: Script, client: Client, answer: Answer) -> None:
    script.answers = [answer]
    with pytest.raises(ServerError):
        client.progress("j")
    assert len(script.calls) == 1


LIVE = httpx2.Response(200, json={"status": "live"})
TRITON = httpx2.Response(200, json={"name": "triton", "extensions": []})
NOTHING = httpx2.Response(404, json={"error": "Not Found"})


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([LIVE], "gateway"),
        ([NOTHING, TRITON], "triton"),
        ([httpx2.Response(200, text="<h1>hello</h1>"), TRITON], "triton"),
        ([fault(503, "starting"), LIVE], "gateway"),
    ],
)
def test_a_server_is_asked_once_what_it_is(script: Script, answers: Sequence[Answer], found: str) -> None:
    script.answers = list(answers)
    with Client("http://server/path") as client:
        assert client.interface == found
        assert client.interface == found
    assert len(script.calls) == len(answers)
    assert script.calls[0] == "GET /path/health/live"


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([NOTHING, NOTHING], WrongProtocolError),
        ([fault(401, "another key")], NotAuthorizedError),
        ([httpx2.ConnectError("refused")], UnreachableError),
    ],
)
def test_a_server_that_is_not_known_yet_is_asked_again(
    script: Script, answers: Sequence[Answer], kind: type[Exception]
) -> None:
    script.answers = [*answers, LIVE]
    with Client("http://server") as client:
        with pytest.raises(kind):
            client.jobs()
        assert client.interface == "gateway"


@pytest.mark.parametrize(
    "url", ["triton+http://server", "triton+https://server", "grpc://server", "gateway+http://server"]
)
def test_a_url_that_says_it_is_believed(script: Script, url: str) -> None:
    with Client(url) as client:
        assert client.interface in url or url.startswith("grpc")
    assert script.calls == []


def test_the_environment_has_the_url_and_the_key(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_URL", "gateway+http://elsewhere:9")
    monkeypatch.setenv("TRITON_DIFFUSERS_API_KEY", "from-environment")
    calls: list[Callable[[], Client]] = [
        Client,
        lambda: Client(api_key="given"),
        lambda: Client(headers={"Authorization": "Basic x"}),
    ]
    for make in calls:
        script.answers = [shown()]
        with make() as client:
            client.progress("j")
    assert {request.url.host for request in script.requests} == {"elsewhere"}
    keys = [request.headers["authorization"] for request in script.requests]
    assert keys == ["Bearer from-environment", "Bearer given", "Basic x"]
