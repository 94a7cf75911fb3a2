"""The gRPC transport against a real, small gRPC server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from triton_diffusers_client import Client, NotAuthorizedError


class Guard(grpc.GenericRpcHandler):
    """Notes every call, and lets nobody in."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Any], Any]] = []

    def service(self, details: Any) -> Any:
        def refuse(request: Any, context: Any) -> None:
            self.seen.append((dict(context.invocation_metadata()), request))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key fits")

        return grpc.unary_unary_rpc_method_handler(
            refuse, request_deserializer=service_pb2.ModelInferRequest.FromString
        )


@pytest.fixture
def guard() -> Iterator[tuple[Guard, str]]:
    handler = Guard()
    server = grpc.server(ThreadPoolExecutor(2), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def test_headers_and_the_time_that_is_left_go_with_every_call(guard: tuple[Guard, str]) -> None:
    handler, url = guard
    with Client(url, api_key="secret", headers={"X-Team": "art"}, retries=0) as client:
        for call in (client.jobs, lambda: client.generate("x", timeout=2.5)):
            with pytest.raises(NotAuthorizedError, match=r"^no key fits$"):
                call()
    for metadata, _ in handler.seen:
        assert (metadata["authorization"], metadata["x-team"]) == ("Bearer secret", "art")
    (_, request) = handler.seen[-1]
    assert request.model_name == "ensemble"
    assert 2_000_000 < request.parameters["timeout"].int64_param <= 2_500_000
