"""Ten thousand hostile requests over all dialects: no server error, no growth of memory, and others are served.

The requests go to the application itself, each with a key of an administrator, of a user or of a viewer, with a wrong
key or with none. A runner of the test's own draws what is accepted.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.test_hostile import JSON
from tests.postgres_server import PostgresServer
from tests.unit.gateway.a1111.calls import PARAMETERS, encoded, text_of
from tests.unit.gateway.conftest import Gateway
from tests.waiting import WITHIN
from triton_diffusers.api.contract import CONTROL_INPUTS, INPUTS
from triton_diffusers.gateway.access.caller import SCOPES, Role
from triton_diffusers.gateway.access.declaration import guarded_routes
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.jobs.job import Claim
from triton_diffusers.gateway.server import make_service
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.gateway.submission import MODELS
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.settings import Settings
from triton_diffusers.storage.local import LocalStore

pytestmark = [pytest.mark.triton, pytest.mark.heavy, pytest.mark.timeout(3600)]

BOUNDS: Mapping[str, Any] = {"max_steps": 40, "max_image_num": 2}
CALM = settings(
    deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=False
)
FIRST, THEN, BY_SCHEMA = 1500, 2600, 500
MAX_GROWN_BYTES = 64 * 1024**2
# Parts of the protocols that the gateway does not speak, refused by their name.
REFUSALS_ABOVE_500 = {501}


def _words(text: str) -> list[str]:
    return text.split()


PIXELS = text_of(encoded())
IMAGES = st.sampled_from([PIXELS, f"data:image/png;base64,{PIXELS}", PIXELS[:60], "====", "http://127.0.0.1/x.png"])
FIELDS = [field.name for field in (*INPUTS, *CONTROL_INPUTS)]
A1111_FIELDS = _words(
    "prompt negative_prompt seed subseed steps cfg_scale width height sampler_name scheduler n_iter batch_size styles"
    " init_images mask mask_blur mask_blur_x inpainting_fill inpaint_full_res inpaint_full_res_padding resize_mode"
    " inpainting_mask_invert denoising_strength override_settings override_settings_restore_afterwards alwayson_scripts"
    " script_name script_args force_task_id infotext enable_hr hr_scale send_images save_images include_init_images"
    " image imageList upscaler_1 upscaling_resize upscaling_resize_w upscaling_resize_h id_task id_live_preview"
    " live_preview controlnet_module controlnet_input_images CLIP_stop_at_last_layers samples_format jpeg_quality"
    " sd_model_checkpoint sd_vae"
)
OPENAI_FIELDS = _words(
    "prompt model n size quality background moderation output_compression output_format partial_images response_format"
    " stream style user image mask control_image images input_fidelity steps seed width height negative_prompt"
)
ADMIN_FIELDS = _words("code name role team weight disabled bounds per_day in_flight scopes models days signs user")
NATIVE_FIELDS = ["model", "priority", "webhook", "jobs", *FIELDS]
QUERIES = _words(
    "wait state task_id cursor limit expires signature by first last format skip_current_image _watch_ _index_"
    " _indexes_ _length_ _raw_ _attrs_ _count_ _search_ _trunc_ _auto_delete_ _timeout_ _tags_ _window_ _priority_"
    " _negative_ _eos_ requestId"
)
HEADERS = _words(
    "Idempotency-Key Content-Type Accept Last-Event-ID X-Request-Id traceparent Content-MD5 Origin Sec-Fetch-Site Range"
    " X-EAS-QueueService-Redis-Gid X-EAS-QueueService-Redis-Uid X-EAS-QueueService-Redis-Priority X-Forwarded-For"
    " X-HTTP-Method-Override Cookie Expect"
)
ODD = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "1e400", "NaN", "9" * 40, "true", "2026-02-30", "\0", "a\0b", "ä€", "..", "%00", "*", "x.png"]
    ),
    st.text(max_size=20),
)  # fmt: skip
# A value of a header is what h11 lets in.
HEADER_VALUES = ODD.map(lambda word: "".join(each for each in word if " " <= each <= "ÿ" and each != "\x7f").strip())


@dataclass
class Attacked:
    """A gateway under attack, and the runner that draws what it accepts."""

    gateway: Gateway
    service: Service
    app: Any
    keys: Mapping[str, str]
    runner: asyncio.Runner
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    drawn: int = 0

    def send(self, method: str, path: str, **fields: Any) -> httpx2.Response:
        """Return the answer of a request; one that says that the gateway failed is kept among the failures."""
        reply = self.runner.run(self._send(method, path, fields))
        self.statuses[reply.status_code] += 1
        if reply.status_code >= 500 and reply.status_code not in REFUSALS_ABOVE_500:
            self.failures.append(f"{method} {path} {fields!r:.2000} → {reply.status_code} {reply.text[:300]}")
        return reply

    async def _send(self, method: str, path: str, fields: dict[str, Any]) -> httpx2.Response:
        sending = self.gateway.client.request(method, path, **fields)
        return await asyncio.wait_for(sending, WITHIN)

    async def draw(self) -> None:
        """Draw each job that was accepted, which any model would accept as well."""
        while True:
            claims = await self.gateway.table.wait_for_claim("tests", "default", MODELS, 4, WITHIN)
            for claim in claims:
                await self._draw(claim)

    async def _draw(self, claim: Claim) -> None:
        self.drawn += 1
        fields = claim.job.request["fields"]
        images = [encoded(kind=str(fields.get("output_format") or "png"))] * claim.job.images
        await self.gateway.finish(claim, images, parameters=PARAMETERS)

    def assert_good_requests_are_answered(self) -> None:
        """Draw an image by each dialect."""
        for path, document in (
            ("/", {"task_id": "1", "prompt": "an apple"}),
            ("/api/predict/draw", {"task_id": "1", "prompt": "an apple"}),
            ("/v1/images/generations", {"prompt": "an apple"}),
            ("/sdapi/v1/txt2img", {"prompt": "an apple"}),
            ("/api/jobs?wait=60", {"prompt": "an apple"}),
        ):
            reply = self.send("POST", path, json=document, headers={"Authorization": f"Bearer {self.keys['user']}"})
            assert reply.status_code in (200, 202), f"{path}: {reply.text}"
            assert "succeeded" in reply.text or "jobs" not in path


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@asynccontextmanager
async def _gateway(folder: Path, database: str) -> AsyncIterator[tuple[Service, Any, Gateway]]:
    chosen = GatewaySettings(
        state_dir=folder,
        database=database,
        services="q_async=ensemble:async,guarded=ensemble:sync:token",
        max_failed_attempts=10**6,
        max_queued=10**6,
        max_wait_seconds=0.2,
        leave_seconds=0,
    )
    service = make_service(chosen, Settings(store=str(folder / "store"), **BOUNDS), is_open=False)
    app = create_app(service)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", timeout=WITHIN) as client:
        yield service, app, Gateway(service, client, ResultWriter(LocalStore(folder / "store"), 0), folder / "store")
    await service.table.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def attacked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Attacked]:
    database = "" if request.param == "sqlite" else request.getfixturevalue("postgres").new_schema()
    with asyncio.Runner() as runner:
        opened = _gateway(tmp_path, database)
        service, app, gateway = runner.run(opened.__aenter__())
        keys = {"wrong": "td_000000000000_" + "x" * 43}
        for name, role in (("admin", Role.ADMIN), ("user", Role.USER), ("viewer", Role.VIEWER)):
            service.accounts.add_user(name, role=role, actor="tests")
            keys[name] = service.accounts.add_key(name, scopes=SCOPES, actor="tests").secret
        attacked = Attacked(gateway, service, app, keys, runner)
        drawing = runner.get_loop().create_task(attacked.draw())
        yield attacked
        drawing.cancel()
        with suppress(asyncio.CancelledError):
            runner.run(asyncio.wait_for(drawing, WITHIN))
        runner.run(opened.__aexit__(None, None, None))


def _names(path: str) -> list[str]:
    if path.startswith(("/sdapi", "/internal", "/controlnet")):
        return A1111_FIELDS
    if path.startswith("/v1"):
        return OPENAI_FIELDS
    if path.startswith(("/api/admin", "/api/me", "/api/setup")):
        return ADMIN_FIELDS
    return NATIVE_FIELDS


@st.composite
def bodies(draw: st.DrawFn, path: str) -> Mapping[str, Any]:
    """Return a body: a good request with strange fields, as JSON or as a form, or something invalid."""
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return {"content": draw(st.binary(max_size=200)), "headers": {"Content-Type": "application/json"}}
    if kind == 1:
        return {"content": json.dumps(draw(JSON)).encode(), "headers": {"Content-Type": "application/json"}}
    names = st.one_of(st.sampled_from(_names(path)), st.text(max_size=8))
    document: dict[str, Any] = {"prompt": "an apple", "task_id": "1", "name": "x"} if draw(st.booleans()) else {}
    document |= draw(st.dictionaries(names, st.one_of(JSON, IMAGES, st.lists(IMAGES, max_size=2)), max_size=5))
    if kind in (2, 3) and "v1" in path:
        return _form(draw, document)
    text = json.dumps(document).encode()
    if kind == 4:
        text = text[: draw(st.integers(0, len(text)))]
    elif kind == 5:
        text = b"[" * draw(st.integers(1, 100_000)) + text
    return {"content": text, "headers": {"Content-Type": "application/json"}}


def _form(draw: st.DrawFn, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a multipart form, sometimes with the wrong boundary."""
    parts = []
    for name, value in document.items():
        safe = name.replace('"', "").replace("\r", "").replace("\n", "").encode(errors="replace")
        suffix = draw(st.sampled_from([b"", b"[]", b"[a]", b'"; filename="x']))
        value = value if isinstance(value, str) else json.dumps(value)
        content = value.encode(errors="replace")
        head = b'--b\r\nContent-Disposition: form-data; name="' + safe + suffix + b'"\r\n\r\n'
        parts.append(head + content + b"\r\n")
    text = b"".join(parts) + b"--b--\r\n"
    boundary = draw(st.sampled_from(["; boundary=b"] * 3 + ["; boundary=c", "", "; charset=utf-7; boundary=b"]))
    if draw(st.integers(0, 5)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return {"content": text, "headers": {"Content-Type": f"multipart/form-data{boundary}"}}


@st.composite
def requests(draw: st.DrawFn, routes: list[tuple[str, str]], jobs: list[str], keys: Mapping[str, str]) -> Any:
    """Return method, path and the rest of a request."""
    method, path = draw(st.sampled_from(routes))
    known = {"job_id": jobs, "name": ["q_async", "draw", "guarded", "ensemble", "user"], "key_id": ["0" * 12]}
    filled = path
    for name in ("job_id", "name", "key_id", "path:path", "name:path"):
        words = st.one_of(st.sampled_from(known.get(name, ["x"])), ODD)
        filled = filled.replace(f"{{{name}}}", quote(draw(words), safe="", errors="replace") or "x")
    if draw(st.integers(0, 19)) == 0:
        method = draw(st.sampled_from(["HEAD", "OPTIONS", "PATCH", "TRACE", "PUT", "x"]))
    query = draw(st.dictionaries(st.one_of(st.sampled_from(QUERIES), ODD), ODD, max_size=3))
    # It would last as long as the caller stays.
    query.pop("_watch_", None)
    pairs = [f"{quote(k, errors='replace')}={quote(v, errors='replace')}" for k, v in query.items()]
    if draw(st.integers(0, 9)) == 0:
        pairs = [*pairs, *pairs, "signature="]
    fields = dict(draw(bodies(path))) if method not in ("GET", "HEAD") else {}
    values = HEADER_VALUES.map(lambda value: value.encode("latin-1"))
    headers = draw(st.dictionaries(st.sampled_from(HEADERS), values, max_size=2))
    key = draw(st.sampled_from(["admin", "user", "user", "user", "viewer", "wrong", ""]))
    if key:
        headers["Authorization"] = f"Bearer {keys[key]}".encode()
    fields["headers"] = {**{k: v.encode() for k, v in fields.get("headers", {}).items()}, **headers}
    return method, f"{filled}?{'&'.join(pairs)}", fields


def _attack(attacked: Attacked, examples: int) -> None:
    """Send so many requests, made for all routes."""
    routes = [
        (method, route.path)
        for route in guarded_routes(attacked.app.routes)
        for method in sorted(route.methods)
        # They would end the accounts that the requests are sent with.
        if not (method in ("PATCH", "DELETE") and route.path.startswith(("/api/admin", "/api/me")))
        # Streams are read to their end by their own tests.
        if not route.path.endswith("/events")
    ]
    headers = {"Authorization": f"Bearer {attacked.keys['user']}"}
    jobs = [attacked.send("POST", "/api/jobs", json={"prompt": "x"}, headers=headers).json()["id"] for _ in range(3)]

    @settings(CALM, max_examples=examples)
    @given(requests(routes, jobs, attacked.keys))
    def with_fields(request: Any) -> None:
        method, path, fields = request
        attacked.send(method, path, **fields)

    with_fields()


def _attack_by_schema(attacked: Attacked, examples: int) -> None:
    """Send so many requests, made from the description of the interface."""
    schema = schemathesis.openapi.from_dict(attacked.app.openapi())
    headers = {"Authorization": f"Bearer {attacked.keys['user']}"}
    operations = schema.exclude(path_regex="/events$|^/api/admin|^/api/me|/sink$")

    @settings(CALM, max_examples=examples)
    @given(operations.as_strategy())
    def with_schema(case: schemathesis.Case) -> None:
        sent = case.as_transport_kwargs(base_url="http://gateway")
        if sent.get("files") or isinstance(sent.get("data"), Mapping | list):
            return  # forms are made above, also broken ones
        fields = {name: sent[name] for name in ("params", "json") if sent.get(name) is not None}
        if sent.get("data") is not None:
            fields["content"] = sent["data"]
        with suppress(UnicodeEncodeError, TypeError, httpx2.InvalidURL):  # the client's own refusals
            attacked.send(sent["method"], sent["url"], headers={**headers, **(sent.get("headers") or {})}, **fields)

    with_schema()


def _memory() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def test_ten_thousand_hostile_requests(attacked: Attacked) -> None:
    attacked.assert_good_requests_are_answered()
    _attack(attacked, FIRST)
    _attack_by_schema(attacked, BY_SCHEMA)
    attacked.assert_good_requests_are_answered()
    before = _memory()
    _attack(attacked, THEN)
    _attack_by_schema(attacked, BY_SCHEMA)
    attacked.assert_good_requests_are_answered()
    grown = _memory() - before
    print(f"{attacked.statuses.total()} requests: {sorted(attacked.statuses.items())}; {attacked.drawn} jobs; {grown=}")
    assert not attacked.failures, "\n".join(attacked.failures[:20])
    assert attacked.statuses.total() >= FIRST + THEN + BY_SCHEMA  # of ten thousand, on two databases
    assert grown < MAX_GROWN_BYTES
