"""Routes of the administration: users, teams, keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from triton_diffusers.gateway.access.caller import ADMIN, SCOPES, Role, caller_of
from triton_diffusers.gateway.access.declaration import SMALL_BODY_BYTES, requires
from triton_diffusers.gateway.access.views import (
    BoundsView,
    KeyView,
    NewKeyView,
    NewTeam,
    NewUser,
    NewUsersKey,
    NewUserView,
    TeamChange,
    TeamView,
    UserChange,
    UserView,
)
from triton_diffusers.gateway.dialects.dialect import ServiceDependency

router = APIRouter(
    prefix="/api/admin",
    tags=["administration"],
    dependencies=[requires(ADMIN, read=Role.ADMIN, write=Role.ADMIN, max_body_bytes=SMALL_BODY_BYTES)],
)


@router.get("/users", summary="List users")
async def users(service: ServiceDependency) -> list[UserView]:
    """Return all users."""
    return [UserView.from_user(user) for user in await service.table.call(service.accounts.users)]


@router.post("/users", status_code=201, summary="Make a user")
async def add_user(request: Request, service: ServiceDependency, wanted: NewUser) -> NewUserView:
    """Make a user and a first key, which is shown once."""
    actor, call = caller_of(request).user, service.table.call
    user = await call(service.accounts.add_user, **wanted.model_dump(), actor=actor)
    scopes = SCOPES if user.role is Role.ADMIN else ()
    key = await call(service.accounts.add_key, user.name, "first key", scopes=scopes, actor=actor)
    return NewUserView(**UserView.from_user(user).model_dump(), first_key=NewKeyView.from_new(key))


@router.patch("/users/{name}", summary="Change a user")
async def change_user(request: Request, service: ServiceDependency, name: str, change: UserChange) -> UserView:
    """Change a user's role, team, weight or bounds; a disabled one's keys are refused."""
    user = await service.table.call(service.accounts.set_user, name, **_changes(change), actor=caller_of(request).user)
    return UserView.from_user(user)


@router.get("/teams", summary="List teams")
async def teams(service: ServiceDependency) -> list[TeamView]:
    """Return all teams."""
    return [TeamView.from_team(team) for team in await service.table.call(service.accounts.teams)]


@router.post("/teams", status_code=201, summary="Make a team")
async def add_team(request: Request, service: ServiceDependency, wanted: NewTeam) -> TeamView:
    """Make a team."""
    actor = caller_of(request).user
    return TeamView.from_team(
        await service.table.call(service.accounts.add_team, wanted.name, weight=wanted.weight, actor=actor)
    )


@router.patch("/teams/{name}", summary="Change a team")
async def change_team(request: Request, service: ServiceDependency, name: str, change: TeamChange) -> TeamView:
    """Change a team's weight or bounds."""
    team = await service.table.call(service.accounts.set_team, name, **_changes(change), actor=caller_of(request).user)
    return TeamView.from_team(team)


@router.get("/keys", summary="List keys")
async def keys(service: ServiceDependency) -> list[KeyView]:
    """Return all keys, without their secrets."""
    return [KeyView.from_key(key) for key in await service.table.call(service.accounts.keys)]


@router.post("/keys", status_code=201, summary="Make a key")
async def add_key(request: Request, service: ServiceDependency, wanted: NewUsersKey) -> NewKeyView:
    """Make a key of any user; it is shown once."""
    values = wanted.model_dump()
    user, actor = values.pop("user"), caller_of(request).user
    return NewKeyView.from_new(await service.table.call(service.accounts.add_key, user, **values, actor=actor))


@router.put("/keys/{key_id}/bounds", summary="Replace the bounds of a key")
async def set_key_bounds(request: Request, service: ServiceDependency, key_id: str, bounds: BoundsView) -> KeyView:
    """Replace the bounds of a key."""
    change, actor = service.accounts.set_key_bounds, caller_of(request).user
    return KeyView.from_key(await service.table.call(change, key_id, bounds.to_bounds(), actor=actor))


@router.delete("/keys/{key_id}", summary="Revoke a key")
async def revoke_key(request: Request, service: ServiceDependency, key_id: str) -> KeyView:
    """Revoke a key, at once and for good."""
    revoke, actor = service.accounts.revoke_key, caller_of(request).user
    return KeyView.from_key(await service.table.call(revoke, key_id, actor=actor))


def _changes(change: UserChange | TeamChange) -> dict[str, Any]:
    """Return the changes that were sent, as the store takes them."""
    values: dict[str, Any] = change.model_dump(exclude={"bounds"})
    return values | {"bounds": change.bounds.to_bounds() if change.bounds else None}
