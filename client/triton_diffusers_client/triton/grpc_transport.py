"""Triton over gRPC: one channel for all threads.

A call that nobody waits for any more is never cancelled by gRPC's own means: Triton 2.51 then forgets to free the
call's place in the model's sequence batcher now and then, and a model whose places are all taken serves nobody. The
``jobs`` model ends the job instead, and the call gets its answer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from triton_diffusers_client.address import Address
from triton_diffusers_client.errors import (
    CancelledError,
    ConnectionFailedError,
    RequestTimeoutError,
    UnreachableError,
)
from triton_diffusers_client.protocols import wrong_protocol
from triton_diffusers_client.triton import statuses
from triton_diffusers_client.triton.tensors import Array
from triton_diffusers_client.triton.transport import server_timeout

_CHANNEL_OPTIONS = [
    # Images are larger than gRPC's usual 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # After a failure gRPC fails all calls without trying, for up to two minutes; a restart takes seconds.
    ("grpc.max_reconnect_backoff_ms", 2000),
]


# How long closing waits for the answers of calls that were given up: closing the channel would cancel them.
_LAST_ANSWERS_SECONDS = 3.0


class GrpcTransport:
    """See ``transport.Transport``."""

    def __init__(self, address: Address, headers: Mapping[str, str] | None = None) -> None:
        self._address = address
        self._headers = dict(headers or {})
        self._client = triton.InferenceServerClient(address.netloc, ssl=address.secure, channel_args=_CHANNEL_OPTIONS)
        self._given_up: weakref.WeakSet[Future[None]] = weakref.WeakSet()

    def call(self, model: str, inputs: Mapping[str, Array], timeout: float | None) -> GrpcCall:
        """Send the request at once."""
        return GrpcCall(self._client, self._address, self._headers, model, inputs, timeout, self._given_up.add)

    def close(self) -> None:
        """Close the channel, which ends calls under way."""
        wait(list(self._given_up), _LAST_ANSWERS_SECONDS)
        self._client.close()


class GrpcCall:
    """See ``transport.Call``."""

    def __init__(
        self,
        client: triton.InferenceServerClient,
        address: Address,
        headers: Mapping[str, str],
        model: str,
        inputs: Mapping[str, Array],
        timeout: float | None,
        give_up: Callable[[Future[None]], None],
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._give_up = give_up
        self._outcome: Future[triton.InferResult] = Future()
        # Done when gRPC is done with the call, whoever still waits for it.
        self._over: Future[None] = Future()
        tensors = [_tensor(name, array) for name, array in inputs.items()]
        try:
            client.async_infer(model, tensors, self._receive, timeout=server_timeout(timeout), headers=headers)
        except ValueError as error:  # what a closed channel says
            raise ConnectionFailedError(str(error)) from error

    def result(self) -> Mapping[str, Array]:
        """Wait for the answer."""
        try:
            answer = self._outcome.result(self._timeout)
        except TimeoutError as error:
            self._give_up(self._over)
            raise RequestTimeoutError("no answer within the time for this request") from error
        except InferenceServerException as error:
            told = statuses.from_grpc(error)
            if isinstance(told, UnreachableError):
                told = wrong_protocol(self._address) or told
            raise told from error
        return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}

    def cancel(self) -> None:
        """Stop waiting; the job has to be cancelled by its id."""
        self._give_up(self._over)
        with suppress(InvalidStateError):
            self._outcome.set_exception(CancelledError("the request was cancelled"))

    def _receive(self, result: triton.InferResult | None, error: InferenceServerException | None) -> None:
        with suppress(InvalidStateError):
            if error is not None:
                self._outcome.set_exception(error)
            else:
                self._outcome.set_result(result)
        self._over.set_result(None)


def _tensor(name: str, array: Array) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)
