"""Results in S3, against a server that checks signatures."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.s3_server import S3Server
from triton_diffusers.errors import NotFound, StorageFailure
from triton_diffusers.settings import Settings, SettingsError
from triton_diffusers.storage import NameTaken, ResultStore, StoreAway, open_store

BUCKET = "a-bucket"
KEY = "images/v1/result/a b_0.png"
NAME = "result/a b_0.png"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses between attempts, which are not waited for."""
    waited: list[float] = []
    real = time.sleep

    def sleep(seconds: float) -> None:
        waited.append(seconds) if seconds > 0 else real(0)

    monkeypatch.setattr("triton_diffusers.storage.attempts.time", type("Time", (), {"sleep": staticmethod(sleep)}))
    return waited


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[S3Server]:
    with S3Server() as server:
        server.buckets[BUCKET] = {}
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def store_of(server: S3Server, **settings: Any) -> ResultStore:
    values = {
        "store": f"s3://{BUCKET}/images/v1/",
        "s3_endpoint": server.endpoint,
        "s3_region": server.region,
        "s3_seconds": 60.0,
        **settings,
    }
    store = open_store(Settings(**values))
    assert store is not None
    return store


def test_an_image_is_stored_read_and_removed(server: S3Server) -> None:
    store = store_of(server)
    store.try_out()
    assert server.keys(BUCKET) == []
    stored = store.save(NAME, b"an image", "image/png")
    assert stored.oss_url == f"s3://{BUCKET}/{KEY}"
    assert stored.image_url == f"{server.endpoint}/{BUCKET}/images/v1/result/a%20b_0.png"
    assert store.locate(NAME) == stored
    placed = server.buckets[BUCKET][KEY]
    assert (placed.data, placed.content_type) == (b"an image", "image/png")
    assert store.read(NAME) == b"an image"
    store.discard(stored)
    assert server.keys(BUCKET) == []
    with pytest.raises(NotFound, match="is not in the store"):
        store.read(NAME)


def test_a_taken_name_is_not_overwritten(server: S3Server) -> None:
    store = store_of(server)
    server.put(BUCKET, KEY, b"another")
    with pytest.raises(NameTaken):
        store.save(NAME, b"an image", "image/png")
    assert store.read(NAME) == b"another"


def test_an_image_whose_answer_was_lost_is_stored(server: S3Server, pauses: list[float]) -> None:
    server.hang_up(method="PUT")
    assert store_of(server).save(NAME, b"an image", "image/png").name == NAME
    assert server.buckets[BUCKET][KEY].data == b"an image"
    assert len(pauses) == 1


def test_a_name_taken_by_others_is_told_after_a_lost_connection(server: S3Server) -> None:
    server.put(BUCKET, KEY, b"another")
    server.fail(500, method="PUT")
    with pytest.raises(NameTaken):
        store_of(server).save(NAME, b"an image", "image/png")


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")])
def test_passing_faults_are_tried_again(server: S3Server, status: int, code: str, pauses: list[float]) -> None:
    server.fail(status, code, times=3)
    store_of(server).save(NAME, b"an image", "image/png")
    assert len(pauses) == 3
    server.fail(status, code, times=4)
    with pytest.raises(StoreAway, match=rf"cannot be uploaded: S3 answered {status} {code} .*attempt 4 of 4"):
        store_of(server).save("result/other.png", b"an image", "image/png")


def test_a_broken_download_is_tried_again(server: S3Server, pauses: list[float]) -> None:
    store = store_of(server)
    store.save(NAME, b"an image" * 1000, "image/png")
    server.hang_up(method="GET", after_bytes=100)
    assert store.read(NAME) == b"an image" * 1000
    assert len(pauses) == 1


def test_a_refusal_is_not_tried_again(server: S3Server, pauses: list[float]) -> None:
    server.fail(403, "AccessDenied")
    with pytest.raises(StorageFailure, match="S3 answered 403 AccessDenied") as caught:
        store_of(server).save(NAME, b"an image", "image/png")
    assert not isinstance(caught.value, StoreAway)
    assert not pauses


def test_a_service_that_cannot_be_reached_is_away(server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    store = store_of(server, s3_endpoint=endpoint, s3_attempts=2)
    with pytest.raises(StoreAway, match=r"no answer \(EndpointConnectionError\), attempt 2 of 2"):
        store.save(NAME, b"an image", "image/png")
    with pytest.raises(SettingsError, match="cannot be reached; check TRITON_DIFFUSERS_S3_ENDPOINT"):
        store.try_out()


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIAOTHER"}, "does not know the access key; check AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch .*; check AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SESSION_TOKEN": "stale"}, "check AWS_SESSION_TOKEN"),
    ],
)
def test_wrong_credentials_end_the_start_with_a_hint(
    server: S3Server, change: dict[str, str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=hint):
        store_of(server).try_out()


def test_an_unknown_bucket_and_a_missing_right_have_hints(server: S3Server) -> None:
    with pytest.raises(SettingsError, match=r"TRITON_DIFFUSERS_STORE: 's3://other/' is invalid: .* does not exist"):
        store_of(server, store="s3://other").try_out()
    server.fail(403, "AccessDenied")
    with pytest.raises(SettingsError, match="need s3:PutObject, s3:GetObject and s3:DeleteObject below the prefix"):
        store_of(server).try_out()


def test_a_service_out_of_order_does_not_stop_a_start(server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    server.fail(503, "ServiceUnavailable")
    store_of(server).try_out()
    assert "cannot be tried out: S3 answered 503" in caplog.text


def test_a_service_without_conditions_is_told_of(server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    server.conditional = False
    store_of(server).try_out()
    assert "the service ignores If-None-Match" in caplog.text
    assert server.keys(BUCKET) == []


def test_session_tokens_and_profiles_are_used(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    server.session_token = "a-token"
    for name in server.environment:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(
        f"[mine]\naws_access_key_id = {server.key_id}\naws_secret_access_key = {server.key_secret}\n"
        "aws_session_token = a-token\n"
    )
    (tmp_path / "config").write_text(f"[profile mine]\nregion = {server.region}\n")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    store_of(server, s3_region="").save(NAME, b"an image", "image/png")
    assert server.keys(BUCKET) == [KEY]


def test_missing_credentials_are_told_at_once(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SettingsError, match="the credentials are incomplete"):
        store_of(server)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SettingsError, match="AWS's default chain finds no credentials"):
        store_of(server)


def test_secrets_are_in_no_log_and_no_error(server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail(500, times=2)
    server.fail(403, "SignatureDoesNotMatch")
    with pytest.raises(StorageFailure) as caught:
        store_of(server).save(NAME, b"an image", "image/png")
    told = caplog.text + str(caught.value)
    assert "SignatureDoesNotMatch" in told
    for secret in (server.key_id, server.key_secret, "StringToSign", "Signature="):
        assert secret not in told


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "https://a-bucket.s3.eu-central-1.amazonaws.com/images/v1/x.png"),
        ({"s3_addressing": "path"}, "https://s3.eu-central-1.amazonaws.com/a-bucket/images/v1/x.png"),
        ({"s3_endpoint": "https://minio.example:9000"}, "https://minio.example:9000/a-bucket/images/v1/x.png"),
        (
            {"s3_endpoint": "https://s3.example", "s3_addressing": "virtual"},
            "https://a-bucket.s3.example/images/v1/x.png",
        ),
        ({"store_url": "https://cdn.example/pictures/"}, "https://cdn.example/pictures/x.png"),
        ({"store": "s3://a-bucket"}, "https://a-bucket.s3.eu-central-1.amazonaws.com/x.png"),
    ],
)
def test_urls_follow_endpoint_and_addressing(server: S3Server, settings: dict[str, str], url: str) -> None:
    values = {"store": "s3://a-bucket/images/v1", "s3_region": "eu-central-1", **settings}
    store = open_store(Settings(**values))  # type: ignore[arg-type]
    assert store is not None
    assert store.locate("x.png").image_url == url


@pytest.mark.parametrize("place", ["s3://", "s3://A_B/x", "s3://a..b/x", "s3://bucket/../x", "s3://bucket/a//b"])
def test_an_invalid_place_is_refused(server: S3Server, place: str) -> None:
    with pytest.raises(SettingsError, match="is invalid: expected s3://bucket/prefix"):
        store_of(server, store=place)


@pytest.mark.parametrize("endpoint", ["minio.example", "ftp://x", "https://host/path", "https://user@host"])
def test_an_invalid_endpoint_is_refused(server: S3Server, endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"S3_ENDPOINT: .* is invalid: expected https://host"):
        store_of(server, s3_endpoint=endpoint)
