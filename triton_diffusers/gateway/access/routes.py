"""Routes of the caller's own account."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.gateway.access.authenticator import too_many_failures
from triton_diffusers.gateway.access.caller import ADMIN, Caller, Role, caller_of
from triton_diffusers.gateway.access.declaration import PUBLIC, SMALL_BODY_BYTES, requires
from triton_diffusers.gateway.access.views import KeyView, MeView, NewKeyView, NewOwnKey, SetUp, UseView
from triton_diffusers.gateway.dialects.dialect import ServiceDependency
from triton_diffusers.gateway.faults import Fault, Refused
from triton_diffusers.gateway.jobs.bounds import subject
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.usage import day_number, focus_csv, grouped, period

router = APIRouter(prefix="/api", tags=["account"], dependencies=[requires(max_body_bytes=SMALL_BODY_BYTES)])


@router.post("/setup", status_code=201, summary="Make the first user", dependencies=[PUBLIC])
async def set_up(request: Request, service: ServiceDependency, wanted: SetUp) -> NewKeyView:
    """Make the first user, an administrator, with a code of the gateway's log; return a key, which is shown once."""
    address = request.client.host if request.client else ""
    if seconds := service.authenticator.failures.wait_seconds(address):
        raise too_many_failures(seconds)
    try:
        return NewKeyView.from_new(await service.table.call(service.accounts.set_up, wanted.code, wanted.name))
    except NotFound:
        service.authenticator.failures.add(address)
        raise


@router.get("/me", summary="Return the caller")
async def me(request: Request, service: ServiceDependency) -> MeView:
    """Return who calls, its rights, and the use of its bounds, those of its team among them."""
    caller = caller_of(request)
    names = await service.table.call(service.accounts.names)
    subjects = {"key": caller.key_id, "user": caller.owner, "team": caller.team}
    use = {kind: await service.table.bounds_use(subject(kind, name)) for kind, name in subjects.items() if name}
    return MeView(
        user=caller.user,
        role=caller.role,
        team=names.get(caller.team, ""),
        key=caller.key_id,
        scopes=sorted(caller.scopes),
        models=sorted(caller.models),
        use={kind: UseView.from_use(each) for kind, each in use.items()},
    )


@router.get("/me/keys", summary="List the caller's keys")
async def own_keys(request: Request, service: ServiceDependency) -> list[KeyView]:
    """Return the keys of the caller's user, without their secrets."""
    keys = await service.table.call(service.accounts.keys, caller_of(request).owner)
    return [KeyView.from_key(key) for key in keys]


@router.post("/me/keys", status_code=201, summary="Make a key")
async def add_own_key(request: Request, service: ServiceDependency, wanted: NewOwnKey) -> NewKeyView:
    """Make a key of the caller's user, with no more rights than the key that asks for it; it is shown once."""
    caller = caller_of(request)
    scopes = wanted.scopes or sorted(caller.scopes - {ADMIN})
    _check_rights(caller, scopes, wanted.models)
    values = wanted.model_dump() | {"scopes": scopes, "models": wanted.models or sorted(caller.models)}
    add = service.accounts.add_key
    return NewKeyView.from_new(await service.table.call(add, caller.user, **values, actor=caller.user))


@router.delete("/me/keys/{key_id}", summary="Revoke a key")
async def revoke_own_key(request: Request, service: ServiceDependency, key_id: str) -> KeyView:
    """Revoke a key of the caller's user, at once and for good."""
    caller = caller_of(request)
    revoke = service.accounts.revoke_key
    return KeyView.from_key(await service.table.call(revoke, key_id, caller.owner, actor=caller.user))


@router.get("/usage", response_class=Response, summary="Report usage")
async def usage(
    request: Request,
    service: ServiceDependency,
    by: Annotated[str, Query(description="Comma-separated: day, user, team, key, model.")] = "day",
    first: date | None = None,
    last: date | None = None,
    form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> Response:
    """Return what was billed, in the order of ``by``: the caller's own jobs, or everybody's for an administrator."""
    rows, first, last = await _usage(service, caller_of(request), by, first, last)
    if form == "csv":
        return Response(focus_csv(rows, first, last), media_type="text/csv")
    return JSONResponse({"first": first.isoformat(), "last": last.isoformat(), "usage": rows})


async def _usage(
    service: Service, caller: Caller, by: str, first: date | None, last: date | None
) -> tuple[list[dict[str, Any]], date, date]:
    first, last = period(first, last)
    sees_all = caller.role.includes(Role.ADMIN) and ADMIN in caller.scopes
    sums = await service.table.usage(None if sees_all else caller.owner, day_number(first), day_number(last) + 1)
    names = await service.table.call(service.accounts.names)
    return grouped(sums, [name.strip() for name in by.split(",") if name.strip()], names), first, last


def _check_rights(caller: Caller, scopes: Sequence[str], models: Sequence[str]) -> None:
    """Raise unless a new key has only rights that the key has which asks for it."""
    if not caller.key_id:
        rule = "make a user first: triton-diffusers users add NAME --role admin"
        raise Refused(Fault(status=409, message=f"user: {caller.user!r} is invalid: {rule}", field="user", rule=rule))
    if not scopes or not caller.scopes.issuperset(scopes):
        excess = sorted(set(scopes) - caller.scopes)
        raise InvalidRequest("scopes", ", ".join(excess), f"must be some of: {', '.join(sorted(caller.scopes))}")
    if caller.models and not caller.models.issuperset(models):
        excess = sorted(set(models) - caller.models)
        raise InvalidRequest("models", ", ".join(excess), f"must be some of: {', '.join(sorted(caller.models))}")
