"""The OSS store, against a real HTTP server that checks signatures."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.oss_server import OssServer
from tests.unit.conftest import request_for
from tests.unit.storage.conftest import BUCKET
from triton_diffusers.errors import NotFound, StorageFailure
from triton_diffusers.settings import Settings, SettingsError
from triton_diffusers.storage import NameTaken, ResultKeeper, ResultStore, StoredResult
from triton_diffusers.storage.bucket import OssAddress

pytestmark = pytest.mark.usefixtures("pauses")

CHAIN = "alibabacloud_credentials.utils.auth_util"
KEY = "images/v1/result/a_0.png"


@contextmanager
def credentials_of(server: OssServer) -> Iterator[str]:
    """Return the URI of a service that hands out what ``server`` takes now, for a minute."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            soon = datetime.now(UTC) + timedelta(minutes=1)
            found = {"AccessKeyId": server.key_id, "AccessKeySecret": server.key_secret, "Code": "Success"}
            found |= {"SecurityToken": server.security_token, "Expiration": f"{soon:%Y-%m-%dT%H:%M:%SZ}"}
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{service.server_address[1]}/credentials"
        service.shutdown()


def save(store: ResultStore, name: str = "result/a_0.png", data: bytes = b"data" * 1000) -> StoredResult:
    return store.save(name, data, "image/png")


def test_an_image_is_uploaded(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    stored = save(opened())
    assert stored == StoredResult(
        "result/a_0.png", f"https://{BUCKET}.oss-cn-hangzhou.aliyuncs.com/{KEY}", f"oss://{BUCKET}/{KEY}"
    )
    assert server.data(BUCKET, KEY) == b"data" * 1000
    assert server.buckets[BUCKET][KEY].content_type == "image/png"
    (seen,) = server.seen
    assert seen.headers["authorization"].startswith("OSS4-HMAC-SHA256 ")
    assert seen.headers["x-oss-forbid-overwrite"] == "true"
    assert "content-md5" in seen.headers


def test_a_session_token_is_sent(
    server: OssServer, opened: Callable[..., ResultStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.security_token = "a-token"
    with pytest.raises(StorageFailure, match="403 InvalidSecurityToken"):
        save(opened())
    monkeypatch.setenv("OSS_SESSION_TOKEN", "a-token")
    save(opened())


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"store": f"oss://{BUCKET}"}, f"https://{BUCKET}.oss-cn-hangzhou.aliyuncs.com/result/a_0.png"),
        ({"store_url": "https://example.com/p/"}, "https://example.com/p/result/a_0.png"),
        ({"store": f"oss://{BUCKET}/图 片"}, f"https://{BUCKET}.oss-cn-hangzhou.aliyuncs.com/%E5%9B%BE%20%E7%89%87/result/a_0.png"),
    ],
)  # fmt: skip
def test_image_urls_follow_the_settings(
    server: OssServer, opened: Callable[..., ResultStore], settings: dict[str, str], url: str
) -> None:
    stored = save(opened(**settings))
    assert stored.image_url == url
    assert stored.oss_url == f"oss://{BUCKET}/{server.keys(BUCKET)[0]}"


def test_the_region_must_match(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    server.region = "us-west-1"
    assert save(opened(oss_region="us-west-1")).image_url.startswith(f"https://{BUCKET}.oss-us-west-1.aliyuncs.com/")
    with pytest.raises(StorageFailure, match="403"):
        save(opened(), "result/b_0.png")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"store": "oss://"}, "TRITON_DIFFUSERS_STORE"),
        ({"store": "oss://No_Bucket!/a"}, "TRITON_DIFFUSERS_STORE"),
        ({"store": f"oss://{BUCKET}/a/../b"}, "TRITON_DIFFUSERS_STORE"),
        ({"store": f"oss://{BUCKET}/a//b"}, "TRITON_DIFFUSERS_STORE"),
        ({"oss_region": ""}, "TRITON_DIFFUSERS_OSS_REGION: '' is invalid"),
        ({"oss_endpoint": "https://other.oss-cn-hangzhou.aliyuncs.com"}, "OSS_ENDPOINT: .* it is of the bucket other"),
        (
            {"oss_endpoint": "oss-cn-beijing.aliyuncs.com"},
            "OSS_ENDPOINT: .* not in TRITON_DIFFUSERS_OSS_REGION=hangzhou",
        ),
        ({"oss_endpoint": "https://oss-cn-hangzhou.aliyuncs.com/prefix"}, "OSS_ENDPOINT: .* expected https://host"),
        ({"oss_endpoint": "ftp://oss-cn-hangzhou.aliyuncs.com"}, "OSS_ENDPOINT: .* expected https://host"),
        ({"oss_endpoint": "https://host:port"}, "OSS_ENDPOINT: .* expected https://host"),
        ({"oss_region": "", "oss_endpoint": "oss-accelerate.aliyuncs.com"}, "OSS_REGION: '' is invalid"),
        ({"store": f"oss://{BUCKET}/" + "图" * 167}, "TRITON_DIFFUSERS_STORE"),
        ({"oss_region": "x.example.com/"}, "TRITON_DIFFUSERS_OSS_REGION"),
        ({"oss_endpoint": "http://a b"}, "TRITON_DIFFUSERS_OSS_ENDPOINT"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(
    opened: Callable[..., ResultStore], settings: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        opened(**settings)


@pytest.mark.parametrize("name", ["OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"])
def test_a_missing_credential_is_told_at_the_start(
    opened: Callable[..., ResultStore], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=f"{name} is not set in the environment; oss://{BUCKET} needs it"):
        opened()


@pytest.mark.parametrize(
    ("region", "endpoint", "used"),
    [
        ("hangzhou", "", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("oss-cn-hangzhou", "", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("oss-cn-hangzhou.aliyuncs.com", "", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("https://oss-cn-hangzhou-internal.aliyuncs.com/", "", "https://oss-cn-hangzhou.aliyuncs.com"),
        (" CN-Hangzhou ", "", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("", "oss-cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("", "cn-hangzhou", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("", "oss-cn-hangzhou-internal", "https://oss-cn-hangzhou-internal.aliyuncs.com"),
        ("", "https://oss-cn-hangzhou.aliyuncs.com/", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("", f"{BUCKET}.oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("", f"https://{BUCKET}.oss-cn-hangzhou-internal.aliyuncs.com", "https://oss-cn-hangzhou-internal.aliyuncs.com"),
        ("cn-hangzhou", "http://OSS-cn-hangzhou.aliyuncs.com", "http://oss-cn-hangzhou.aliyuncs.com"),
        ("cn-hangzhou", "https://oss-accelerate.aliyuncs.com", "https://oss-accelerate.aliyuncs.com"),
        ("cn-hangzhou", "http://127.0.0.1:99/", "http://127.0.0.1:99"),
        ("cn-hangzhou", "http://[::1]:99", "http://[::1]:99"),
    ],
)  # fmt: skip
def test_address_is_understood_as_people_write_it(region: str, endpoint: str, used: str) -> None:
    address = OssAddress.of(BUCKET, Settings(oss_region=region, oss_endpoint=endpoint))
    assert address == OssAddress("cn-hangzhou", used)


def test_unencrypted_endpoint_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    OssAddress.of(BUCKET, Settings(oss_endpoint="http://oss-cn-hangzhou.aliyuncs.com"))
    assert "http://oss-cn-hangzhou.aliyuncs.com is not encrypted" in caplog.text


def test_trial_uses_every_right_and_leaves_nothing(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    opened().try_out()
    assert [seen.method for seen in server.seen] == ["PUT", "HEAD", "DELETE"]
    assert {seen.key for seen in server.seen} == {"images/v1/.triton-diffusers"}
    assert server.keys(BUCKET) == []


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda server: server.buckets.clear(), "404 NoSuchBucket .*; the bucket does not exist at this endpoint"),
        (lambda server: setattr(server, "key_id", "another"), "InvalidAccessKeyId .*; .*check OSS_ACCESS_KEY_ID"),
        (lambda server: setattr(server, "key_secret", "another"), "SignatureDoesNotMatch .*; check OSS_ACCESS_KEY_SEC"),
        (lambda server: setattr(server, "security_token", "a"), "InvalidSecurityToken .*; check OSS_SESSION_TOKEN"),
        (lambda server: setattr(server, "region", "cn-beijing"), "OSS answered 403"),
        (lambda server: server.fail(403, code="AccessDenied", method="PUT"), "AccessDenied .*; .* need oss:PutObject"),
        (lambda server: server.fail(403, code="AccessDenied", method="DELETE"), "AccessDenied .* oss:DeleteObject"),
        (lambda server: server.hang_up(), r"no answer \(ConnectionError\); http://127.0.0.1.* cannot be reached"),
    ],
)
def test_trial_says_what_is_wrong(
    server: OssServer, opened: Callable[..., ResultStore], prepare: Callable[[OssServer], None], told: str
) -> None:
    store = opened()
    prepare(server)
    with pytest.raises(
        SettingsError, match=f"TRITON_DIFFUSERS_STORE: 'oss://{BUCKET}/images/v1/' is invalid: .*{told}"
    ):
        store.try_out()


def test_trial_of_a_bucket_elsewhere_names_its_endpoint(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    store = opened()
    server.fail(403, code="AccessDenied", endpoint="oss-cn-beijing.aliyuncs.com")
    with pytest.raises(SettingsError, match=r"the bucket is at oss-cn-beijing\.aliyuncs\.com; set .*OSS_ENDPOINT="):
        store.try_out()


def test_trial_of_an_oss_that_is_out_of_order_is_a_warning(
    server: OssServer, opened: Callable[..., ResultStore], caplog: pytest.LogCaptureFixture
) -> None:
    server.fail(503, code="ServiceUnavailable")
    opened().try_out()
    assert "cannot be tried out: OSS answered 503" in caplog.text


def test_credentials_that_expire_are_renewed(
    server: OssServer, opened: Callable[..., ResultStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in server.environment:
        monkeypatch.delenv(name)
    server.security_token = "first"
    with credentials_of(server) as uri:
        # The environment's variables, as the package has read them.
        monkeypatch.setattr(f"{CHAIN}.environment_ecs_metadata_disabled", "true")
        monkeypatch.setattr(f"{CHAIN}.environment_credentials_uri", uri)
        store = opened()
        save(store, "result/a_0.png")
        server.security_token = "second"  # the one before it is not taken any more
        save(store, "result/b_0.png")
    assert len({seen.headers["x-oss-security-token"] for seen in server.seen if seen.method == "PUT"}) == 2


def test_a_name_is_written_once(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    store = opened()
    save(store)
    with pytest.raises(NameTaken, match=f"oss://{BUCKET}/{KEY} is stored already"):
        save(store, data=b"other")
    with pytest.raises(NameTaken):
        save(store)  # the same data are another's, too
    assert server.data(BUCKET, KEY) == b"data" * 1000


def test_discarded_images_are_deleted(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    store = opened()
    stored = save(store)
    server.fail(503)
    store.discard(stored)
    assert server.keys(BUCKET) == []
    server.fail(403, code="AccessDenied")
    with pytest.raises(StorageFailure, match=f"oss://{BUCKET}/{KEY} cannot be removed: OSS answered 403 AccessDenied"):
        store.discard(stored)


def test_many_threads_share_a_store(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    store = opened()
    server.fail(500, times=5)
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda number: save(store, f"result/{number}.png", b"%d" % number * 9000), range(24)))
    for number, result in enumerate(stored):
        assert server.data(BUCKET, f"images/v1/{result.name}") == b"%d" % number * 9000


def test_a_request_that_fails_at_its_last_image_leaves_none(
    server: OssServer, opened: Callable[..., ResultStore]
) -> None:
    store = opened()

    class Third:
        """Lets two images pass."""

        count = 0

        def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
            self.count += 1
            if self.count == 3:
                server.fail(403, code="AccessDenied", method="PUT")
            return store.save(name, data, content_type)

        def discard(self, stored: StoredResult) -> None:
            store.discard(stored)

    with pytest.raises(StorageFailure, match="403 AccessDenied"):
        ResultKeeper(Third()).keep(request_for(image_num=3), [b"a", b"b", b"c"])
    assert server.count("DELETE") == 2
    assert server.keys(BUCKET) == []


def test_stored_results_are_located_and_read_by_name(server: OssServer, opened: Callable[..., ResultStore]) -> None:
    store = opened()
    stored = store.save("result/图 1.png", b"pixels", "image/png")
    assert store.locate("result/图 1.png") == stored
    server.fail(503, times=1, code="ServiceUnavailable", method="GET")
    assert store.read("result/图 1.png") == b"pixels"
    with pytest.raises(NotFound, match=r"result/b\.png is not in the store"):
        store.read("result/b.png")


def test_concurrent_requests_of_one_task_get_different_names(
    server: OssServer, opened: Callable[..., ResultStore]
) -> None:
    keeper = ResultKeeper(opened())
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(lambda number: keeper.keep(request_for(), [b"%d" % number])[0], range(4)))
    assert [server.data(BUCKET, f"images/v1/{result.name}") for result in kept] == [b"0", b"1", b"2", b"3"]
