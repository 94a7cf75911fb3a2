"""Faults of OSS: outlived, recognised, or an error that leaves nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.oss_server import OssServer
from tests.unit.storage.conftest import BUCKET
from tests.unit.storage.test_oss import KEY, save
from triton_diffusers.errors import StorageFailure
from triton_diffusers.storage import NameTaken, ResultStore

pytestmark = pytest.mark.usefixtures("pauses")


@pytest.mark.parametrize(
    "fault",
    [
        lambda server: server.fail(500, times=3),
        lambda server: server.fail(503, times=3, code="ServiceUnavailable"),
        lambda server: server.fail(429, times=3, code="TooManyRequests"),
        lambda server: server.fail(400, times=3, code="RequestTimeout"),
        lambda server: server.hang_up(times=3),
        lambda server: server.hang_up(after_bytes=1000, times=3),
    ],
)
def test_passing_faults_are_outlived(
    server: OssServer, opened: Callable[..., ResultStore], fault: Callable[[OssServer], None], pauses: list[float]
) -> None:
    fault(server)
    save(opened())
    assert server.data(BUCKET, KEY) == b"data" * 1000
    assert server.count("PUT") == 4
    assert [0.2 * 2**number / 2 <= pause <= 0.2 * 2**number for number, pause in enumerate(pauses)] == [True] * 3


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda server: server.fail(500, times=4), "OSS answered 500 InternalError (request 0123456789ABCDEF)"),
        (lambda server: server.hang_up(after_bytes=10, times=4), "no answer (ConnectionError)"),
    ],
)
def test_faults_that_do_not_pass_end(
    server: OssServer, opened: Callable[..., ResultStore], fault: Callable[[OssServer], None], told: str
) -> None:
    fault(server)
    with pytest.raises(StorageFailure) as caught:
        save(opened())
    assert str(caught.value) == f"oss://{BUCKET}/{KEY} cannot be uploaded: {told}, attempt 4 of 4"
    assert server.count("PUT") == 4
    assert server.keys(BUCKET) == []


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda server: server.buckets.clear(), "404 NoSuchBucket"),
        (lambda server: server.fail(403, code="AccessDenied"), "403 AccessDenied"),
        (lambda server: setattr(server, "key_secret", "another"), "403 SignatureDoesNotMatch"),
        (lambda server: setattr(server, "key_id", "another"), "403 InvalidAccessKeyId"),
    ],
)
def test_permanent_errors_are_not_retried(
    server: OssServer,
    opened: Callable[..., ResultStore],
    prepare: Callable[[OssServer], None],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, secret = opened(), server.key_secret
    prepare(server)
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageFailure) as caught:
        save(store)
    assert f"oss://{BUCKET}/{KEY} cannot be uploaded: OSS answered {told}" in str(caught.value)
    assert server.count("PUT") == 1
    for text in (str(caught.value), caplog.text):
        assert secret not in text
        assert server.key_id not in text
        assert "StringToSign" not in text


def test_a_server_that_is_not_there(opened: Callable[..., ResultStore]) -> None:
    with OssServer() as gone:
        endpoint = gone.endpoint
    with pytest.raises(StorageFailure, match=r"no answer \(ConnectionError\), attempt 2 of 2"):
        save(opened(oss_endpoint=endpoint, oss_attempts=2))


def test_silence_is_a_fault(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    server.delay(0.6)
    save(opened(oss_seconds=0.2))
    assert server.count("PUT") == 2


@pytest.mark.parametrize("times", [1, 3])
def test_an_upload_whose_answer_is_lost_is_recognised(
    server: OssServer, opened: Callable[..., ResultStore], times: int
) -> None:
    server.hang_up(stored=True, method="PUT")
    server.hang_up(times=times - 1, method="PUT")
    assert save(opened()).oss_url == f"oss://{BUCKET}/{KEY}"
    assert server.count("PUT") == times + 1


def test_anothers_object_is_not_taken_for_ours_after_a_fault(
    server: OssServer, opened: Callable[..., ResultStore]
) -> None:
    server.put(BUCKET, KEY, b"another's")
    server.hang_up(method="PUT")
    with pytest.raises(NameTaken):
        save(opened())
    assert server.data(BUCKET, KEY) == b"another's"


def test_an_upload_that_failed_after_all_is_removed(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    server.hang_up(stored=True, method="PUT")
    server.fail(500, times=3, method="PUT")
    with pytest.raises(StorageFailure, match="500"):
        save(opened())
    assert server.keys(BUCKET) == []


def test_damage_on_the_way_is_noticed_and_mended(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    server.corrupt_crc(method="PUT")
    save(opened())
    assert [seen.method for seen in server.seen] == ["PUT", "DELETE", "PUT"]
    assert server.data(BUCKET, KEY) == b"data" * 1000


def test_damage_that_does_not_end_is_a_failure_that_leaves_nothing(
    server: OssServer, opened: Callable[..., ResultStore]
) -> None:
    server.corrupt_crc(times=4, method="PUT")
    with pytest.raises(StorageFailure, match=r"damaged on the way \(CRC64\), attempt 4 of 4"):
        save(opened())
    assert server.keys(BUCKET) == []
