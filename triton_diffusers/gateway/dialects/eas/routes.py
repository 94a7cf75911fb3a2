"""The routes of services, as clients of PAI-EAS call them."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.websockets import WebSocket

from triton_diffusers.errors import InvalidRequest, NotFound, TritonDiffusersError
from triton_diffusers.gateway.access.caller import REFERENCE, Role
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects import reference
from triton_diffusers.gateway.dialects.dialect import Dialect, ServiceDependency
from triton_diffusers.gateway.dialects.eas.frames import JSON, encode_attributes, encode_frames, media_type_of
from triton_diffusers.gateway.dialects.eas.input_queue import NAME, PRIORITIES, InputQueue
from triton_diffusers.gateway.dialects.eas.parameters import Parameters
from triton_diffusers.gateway.dialects.eas.queue import Queue
from triton_diffusers.gateway.dialects.eas.queue_call import authorized_service, check_digest, open_call
from triton_diffusers.gateway.dialects.eas.sink_queue import SinkQueue
from triton_diffusers.gateway.dialects.eas.watch import Watch, watch_by_socket, watch_by_stream
from triton_diffusers.gateway.faults import Fault, Refused, fault_of
from triton_diffusers.gateway.jobs.job import MAX_NUMBER
from triton_diffusers.gateway.service import Service

_PREFIX = "/api/predict/"
_SINK = "sink"
_REQUEST_ID = "X-Eas-Queueservice-Request-Id"
_NUMBERS = range(1, MAX_NUMBER + 1)
# Paths of other protocols, which are not translated in queues: their callers would not understand the reply.
_FOREIGN_PATH = re.compile(r"(sdapi|v1|controlnet|internal)(/.*)?")
_CODE = re.compile(r"([A-Z][a-z]*)+(\.[A-Z][a-z]*)?|[0-9]+")
_MAX_CODE_CHARS = 20
_MAX_LENGTH = 1000
_ANY_PRIORITY = -1

router = APIRouter(tags=["services"], dependencies=[requires(REFERENCE, read=Role.USER)])


@router.post("/api/predict/{name}", summary="Draw, or queue a request (PAI-EAS)")
@router.post("/api/predict/{name}/{path:path}", summary="Draw, or queue a request, with a path (PAI-EAS)")
async def predict(request: Request, service: ServiceDependency, name: str, path: str = "") -> Response:
    """Answer with the reply of a synchronous service, or with an entry's index in an asynchronous one's queue."""
    named = authorized_service(request, service, name)
    if path == _SINK or request.query_params.get("_eos_"):
        raise Refused(Fault(status=405, message="this queue is written, and ended, by the service alone"))
    if _FOREIGN_PATH.fullmatch(path):
        message = f"path: {path[:80]!r} is invalid: that protocol is not spoken in services"
        raise Refused(Fault(status=404, message=message, field="path"))
    check_digest(request, await request.body())
    if named.mode == "sync":
        return await reference.draw(request, service, named.model)
    job = await InputQueue(open_call(request, service, name)).put(request)
    return PlainTextResponse(str(job.number), headers={_REQUEST_ID: job.id})


@router.get("/api/predict/{name}", summary="Return a part or the state of an input queue (PAI-EAS)")
async def read_input(request: Request, service: ServiceDependency, name: str) -> Response:
    """Answer questions about an input queue."""
    return await _read(request, InputQueue(open_call(request, service, name)))


@router.get("/api/predict/{name}/sink", summary="Return results, or the state of a sink (PAI-EAS)")
async def read_sink(request: Request, service: ServiceDependency, name: str) -> Response:
    """Return results: some, or all for as long as the caller stays."""
    call = open_call(request, service, name)
    if not call.parameters.flag("_watch_"):
        return await _read(request, SinkQueue(call))
    return StreamingResponse(watch_by_stream(request, Watch(call)), media_type="application/octet-stream")


@router.put("/api/predict/{name}", summary="Refuse to commit (PAI-EAS)", include_in_schema=False)
async def commit_input(request: Request, service: ServiceDependency, name: str) -> Response:
    """Refuse: entries of an input queue are committed by runners."""
    return await _commit(request, InputQueue(open_call(request, service, name)))


@router.put("/api/predict/{name}/sink", summary="Commit or reject results (PAI-EAS)")
async def commit_sink(request: Request, service: ServiceDependency, name: str) -> Response:
    """Take results off the sink for the caller's group, or have them sent again."""
    return await _commit(request, SinkQueue(open_call(request, service, name)))


@router.delete("/api/predict/{name}", summary="Cancel requests of an input queue (PAI-EAS)")
async def delete_input(request: Request, service: ServiceDependency, name: str) -> Response:
    """Cancel jobs."""
    return await _delete(request, InputQueue(open_call(request, service, name)))


@router.delete("/api/predict/{name}/sink", summary="Delete results of a sink (PAI-EAS)")
async def delete_sink(request: Request, service: ServiceDependency, name: str) -> Response:
    """Delete results for all groups."""
    return await _delete(request, SinkQueue(open_call(request, service, name)))


@router.websocket("/api/predict/{name}/sink")
async def watch_sink(socket: WebSocket, name: str) -> None:
    """Send the results of a sink as they appear."""
    service: Service = socket.app.state.service
    try:
        watch = Watch(open_call(socket, service, name))
        await watch_by_socket(socket, watch, service.settings.read_seconds)
    except (Refused, TritonDiffusersError) as error:
        fault = fault_of(error)
        await socket.send_denial_response(JSONResponse(reference.error_reply(fault), fault.status))


async def _read(request: Request, queue: Queue) -> Response:
    parameters = Parameters(request.query_params)
    media_type = media_type_of(request.headers.get("accept", ""))
    if parameters.flag("_attrs_"):
        return Response(encode_attributes(await queue.attributes(), media_type), media_type=media_type)
    if parameters.flag("_count_"):
        priority = parameters.number("_priority_", _ANY_PRIORITY, PRIORITIES)
        return PlainTextResponse(
            str(await queue.count(None if priority == _ANY_PRIORITY else priority, parameters.tags))
        )
    if parameters.flag("_search_"):
        index = parameters.number("_index_", 0, _NUMBERS)
        if (place := await queue.search(index)) is None:
            raise NotFound(f"_index_: no entry {index} is in the queue")
        return JSONResponse(place)
    raw = parameters.flag("_raw_", default=True)
    length = parameters.number("_length_", 1, range(1, 2 if raw else _MAX_LENGTH + 1))
    frames = await queue.get(length, delete=parameters.flag("_auto_delete_"))
    if not frames:
        return Response(status_code=204)
    if raw:
        return Response(frames[0].data, media_type=JSON, headers={_REQUEST_ID: frames[0].tags["requestId"]})
    return Response(encode_frames(frames, media_type), media_type=media_type)


async def _commit(request: Request, queue: Queue) -> Response:
    parameters = Parameters(request.query_params)
    indexes = parameters.indexes()
    if parameters.flag("_negative_"):
        _check_reason((await request.body()).decode(errors="replace"))
        await queue.reject(indexes)
    else:
        await queue.commit(indexes)
    return PlainTextResponse("OK")


async def _delete(request: Request, queue: Queue) -> Response:
    parameters = Parameters(request.query_params)
    if parameters.flag("_trunc_"):
        await queue.truncate(parameters.number("_index_", 0, _NUMBERS))
    else:
        await queue.delete(parameters.indexes())
    return PlainTextResponse("OK")


def _check_reason(form: str) -> None:
    """Raise InvalidRequest unless the code in a form, which may be missing, is one that queues take."""
    code = dict(parse_qsl(form)).get("_code_", "")
    if code and not (_CODE.fullmatch(code) and len(code) <= _MAX_CODE_CHARS):
        rule = f"must be digits or words such as Shutdown, of at most {_MAX_CODE_CHARS} characters"
        raise InvalidRequest("_code_", code, rule)


DIALECT = Dialect(NAME, router, lambda path: path.startswith(_PREFIX), reference.render)
