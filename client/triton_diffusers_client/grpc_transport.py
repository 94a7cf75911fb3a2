"""Triton over gRPC: one channel for all threads; cancelling a call reaches the model."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from triton_diffusers_client import statuses
from triton_diffusers_client.errors import CancelledError, ConnectionFailedError, RequestTimeoutError
from triton_diffusers_client.tensors import Array
from triton_diffusers_client.transport import Address

_CHANNEL_OPTIONS = [
    # Pictures are larger than gRPC's usual 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # After a failure gRPC fails all calls without trying, for up to two minutes; a restart takes seconds.
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GrpcTransport:
    """See ``transport.Transport``."""

    def __init__(self, address: Address) -> None:
        self._client = triton.InferenceServerClient(address.netloc, ssl=address.secure, channel_args=_CHANNEL_OPTIONS)

    def call(self, model: str, inputs: Mapping[str, Array], timeout: float | None) -> GrpcCall:
        """Send the request at once."""
        return GrpcCall(self._client, model, inputs, timeout)

    def close(self) -> None:
        """Close the channel, which ends calls under way."""
        self._client.close()


class GrpcCall:
    """See ``transport.Call``."""

    def __init__(
        self, client: triton.InferenceServerClient, model: str, inputs: Mapping[str, Array], timeout: float | None
    ) -> None:
        self._timeout = timeout
        self._cancelled = False
        self._outcome: Future[triton.InferResult] = Future()
        tensors = [_tensor(name, array) for name, array in inputs.items()]
        try:
            self._context = client.async_infer(model, tensors, self._receive)
        except ValueError as error:  # what a closed channel says
            raise ConnectionFailedError(str(error)) from error

    def result(self) -> Mapping[str, Array]:
        """Wait for the answer; a call whose time is over is cancelled."""
        try:
            answer = self._outcome.result(self._timeout)
        except TimeoutError as error:
            # Not gRPC's own deadline: the server would see it too, and the model's "cancelled" could come first.
            self._context.cancel()
            raise RequestTimeoutError("no answer within the time for this request") from error
        except InferenceServerException as error:
            if self._cancelled:
                raise CancelledError("the request was cancelled") from error
            raise statuses.from_grpc(error) from error
        return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}

    def cancel(self) -> None:
        """Cancel the call; Triton tells the model."""
        self._cancelled = True
        self._context.cancel()

    def _receive(self, result: triton.InferResult | None, error: InferenceServerException | None) -> None:
        if error is not None:
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(result)


def _tensor(name: str, array: Array) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)
