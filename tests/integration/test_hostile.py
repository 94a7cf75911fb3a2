"""Whatever is sent, the server answers with an image or with a refusal, and continues as before.

Triton's own front end answers malformed JSON, and JSON of the wrong types, with status 500 before any model sees it;
these messages are known and counted as refusals.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.integration.calls import MODELS, Calls, small
from tests.integration.conftest import TritonStarter
from tests.waiting import WITHIN
from triton_diffusers.api.contract import INPUTS, JOBS_INPUTS

# So narrow that whatever is accepted is made at once.
BOUNDS = {
    "TRITON_DIFFUSERS_MAX_STEPS": "4",
    "TRITON_DIFFUSERS_MAX_SIDE": "128",
    "TRITON_DIFFUSERS_MAX_IMAGE_NUM": "2",
    "TRITON_DIFFUSERS_JOB_HISTORY_SECONDS": "30",
}

# Answers of Triton's HTTP front end, with status 500, to JSON that it cannot use.
TRITONS_OWN_500 = re.compile(
    r"failed to parse the request JSON buffer|attempt to (access|get) .*(JSON|non-object|non-array)|"
    r"Unable to parse ('data'|JSON bytes array|'shape')|Unable to parse '(inputs|outputs|id|parameters|name|datatype)'|"
    r"parameter key '.*' was not found in the JSON",
    re.DOTALL,
)
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}

FIELDS = [field.name for field in INPUTS]
NAMES = st.one_of(
    st.sampled_from([*FIELDS, *(field.name for field in JOBS_INPUTS), "CORRID"]), st.text(max_size=20).filter(bool)
)
WORDS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["", "..", "../../x", "a\0b", "\ufeff", "💥" * 50, "x" * 20_000, "t2i", "i2i", "png", "Euler", "LCM", "list",
         "progress", "cancel", "probe", "-1", "1" * 40, "NaN", "' OR 1=1 --", "${jndi:x}", "%s%n", "<b>", "\u202e"]
    ),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-2, 130), st.sampled_from([2**31, -(2**31), 2**53, 0, 1, 2])
)
FLOATS = st.one_of(st.floats(), st.floats(0, 40), st.sampled_from([float("nan"), float("inf"), 1e39, 1e-45, -0.0]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.integers(), FLOATS, WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def json_bodies(draw: st.DrawFn) -> bytes:
    """Something for ``generate``: a good request with strange fields, anything at all, or a body that is not JSON."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return json.dumps(draw(JSON)).encode()
    body: dict[str, Any] = {"task_id": "hostile", "prompt": "a red apple", "steps": 2, "width": 64, "height": 64}
    body |= draw(st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
    for name in draw(st.lists(st.sampled_from(["task_id", "prompt", "steps"]), max_size=1)):
        del body[name]
    text = json.dumps(body).encode()
    return text[: draw(st.integers(0, len(text)))] if kind == 2 else text


@st.composite
def tensor_contents(draw: st.DrawFn) -> tuple[str, list[int], bytes]:
    """Return a tensor's datatype, shape and bytes, mostly fitting one another."""
    datatype = draw(st.sampled_from(["BYTES", "INT64", "FP32", "BOOL", "INT32", "FP64", "UINT64", "FP16", "NONSENSE"]))
    shape = draw(
        st.one_of(st.just([1, 1]), st.just([1]), st.lists(st.integers(0, 3), max_size=4), st.lists(NUMBERS, max_size=3))
    )
    count = 1
    for side in shape:
        count = min(count * max(side, 0), 30)
    pieces = []
    for _ in range(count):
        if datatype == "BYTES":
            element = draw(st.one_of(WORDS.map(lambda word: word.encode()), st.binary(max_size=30)))
            pieces.append(struct.pack("<I", len(element)) + element)
        elif datatype == "FP32":
            pieces.append(struct.pack("<f", draw(st.floats(width=32))))
        elif datatype == "BOOL":
            pieces.append(draw(st.sampled_from([b"\0", b"\1", b"\xff"])))
        else:
            pieces.append(struct.pack("<q", draw(NUMBERS)))
    contents = b"".join(pieces)
    if draw(st.integers(0, 9)) == 0:
        contents = draw(st.binary(max_size=40))
    return datatype, shape, contents


@st.composite
def tensor_requests(draw: st.DrawFn) -> service_pb2.ModelInferRequest:
    """Return a good request over gRPC of which some tensors are replaced, added or missing."""
    number = lambda value: ("INT64", [1, 1], struct.pack("<q", value))  # noqa: E731
    text = lambda value: ("BYTES", [1, 1], struct.pack("<I", len(value)) + value)  # noqa: E731
    tensors = {
        "task_id": text(b"hostile"),
        "prompt": text(b"a red apple"),
        "steps": number(2),
        "width": number(64),
        "height": number(64),
    }
    tensors |= draw(st.dictionaries(NAMES, tensor_contents(), max_size=3))
    for name in draw(st.lists(st.sampled_from(list(tensors)), max_size=2, unique=True)):
        del tensors[name]
    model = draw(st.sampled_from([*MODELS, "jobs", "nothing"]))
    request = service_pb2.ModelInferRequest(model_name=model, id=draw(st.sampled_from(["", "x" * 300])))
    for name, (datatype, shape, contents) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(contents)
    for name in draw(st.lists(NAMES, max_size=2)):
        request.outputs.add(name=name)
    for name in draw(st.lists(st.sampled_from(["sequence_end", "sequence_start", "binary_data_output"]), max_size=2)):
        request.parameters[name].bool_param = True
    if draw(st.integers(0, 9)) == 0:
        request.parameters["sequence_id"].int64_param = draw(st.integers(0, 3))
    return request


def check_json(calls: Calls, model: str, body: bytes) -> None:
    status, reply = calls.post(f"/v2/models/{model}/generate", body)
    if status == 500:
        message = json.loads(reply)["error"]
        assert TRITONS_OWN_500.search(message), f"{body!r} → {message}"
    else:
        assert status in (200, 400, 404, 413, 501), f"{body!r} → {status} {reply[:500]!r}"


def check_tensors(stub: Any, request: service_pb2.ModelInferRequest) -> None:
    code, details = None, ""
    try:
        stub.ModelInfer(request, timeout=WITHIN)
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
    assert code is None or code in REFUSALS, f"{request} → {code} {details}"


def attack(calls: Calls, examples: int, *, repeatable: bool) -> None:
    """Send so many strange requests of each kind, one after another."""
    calm = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=repeatable,
        suppress_health_check=list(HealthCheck),
    )

    @calm
    @given(model=st.sampled_from([*MODELS, "jobs"]), body=json_bodies())
    def with_json(model: str, body: bytes) -> None:
        check_json(calls, model, body)

    with grpc.insecure_channel(calls.server.grpc_url.removeprefix("grpc://")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        @calm
        @given(request=tensor_requests())
        def with_tensors(request: service_pb2.ModelInferRequest) -> None:
            check_tensors(stub, request)

        with_json()
        with_tensors()


def memory(server_process: int) -> int:
    """Bytes in memory of a process and its children."""
    process = psutil.Process(server_process)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    starter = TritonStarter(tmp_path_factory.mktemp("hostile"))
    try:
        opened_calls = Calls(starter(env=BOUNDS))
        yield opened_calls
        opened_calls.close()
    finally:
        starter.end()


def assert_as_before(calls: Calls, before: list[bytes]) -> None:
    """Return the server is ready, at rest, and draws what it drew."""
    assert calls.client.is_server_ready()
    assert all(calls.client.is_model_ready(model) for model in (*MODELS, "jobs"))
    calls.wait_until_idle()
    assert calls.metrics()["sd_images_in_flight"] == 0
    assert calls.metrics()["sd_requests_queued"] == 0
    assert calls.grpc(**small())["images"] == before
    assert calls.grpc("ensemble", **small())["images"] == before


def test_strange_requests_are_answered_and_leave_no_trace(calls: Calls) -> None:
    before = calls.grpc(**small())["images"]
    attack(calls, 150, repeatable=True)
    assert_as_before(calls, before)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_thousands_of_strange_requests(calls: Calls) -> None:
    before = calls.grpc(**small())["images"]
    attack(calls, 500, repeatable=False)
    used = memory(calls.server.process.pid)
    attack(calls, 1000, repeatable=False)
    assert_as_before(calls, before)
    grown = memory(calls.server.process.pid) / used - 1
    assert grown < 0.05, f"memory has grown by {grown:.1%}"


@pytest.mark.parametrize("model", [*MODELS, "jobs"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 10_000, b'{"prompt":"\\ud800"}'])
def test_malformed_bodies_are_refused(calls: Calls, model: str, body: bytes) -> None:
    check_json(calls, model, body)


@pytest.mark.parametrize("path", ["/v2/models/nothing/generate", "/v2/models/sd_base/versions/9/generate"])
def test_models_that_are_not_there(calls: Calls, path: str) -> None:
    assert calls.post(path, b'{"task_id": "a", "prompt": "b"}')[0] == 404


def test_a_request_of_many_megabytes(calls: Calls) -> None:
    body = json.dumps({"task_id": "a", "prompt": "x" * 20_000_000}).encode()
    status, reply = calls.post("/v2/models/ensemble/generate", body)
    assert status == 400
    assert b"prompt: '20000000 characters' is invalid: at most 10000" in reply
    calls.grpc(**small())
