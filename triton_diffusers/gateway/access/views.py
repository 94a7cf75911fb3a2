"""Users, teams and keys as the HTTP interface shows and takes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from triton_diffusers.gateway.access.accounts import ApiKey, NewKey, Team, User
from triton_diffusers.gateway.access.caller import Role
from triton_diffusers.gateway.jobs.bounds import Bounds, BoundsUse

_STRICT = ConfigDict(extra="forbid")
_EXAMPLE_DAYS = 90


class BoundsView(BaseModel):
    """Bounds in megapixel-steps; null: none. ``in_flight`` is of what is queued and running."""

    model_config = _STRICT

    per_minute: float | None = Field(None, ge=0)
    per_day: float | None = Field(None, ge=0)
    per_month: float | None = Field(None, ge=0)
    in_flight: float | None = Field(None, ge=0)

    @classmethod
    def from_bounds(cls, bounds: Bounds) -> BoundsView:
        """Return the view of bounds."""
        return cls(**{name: getattr(bounds, name) for name in cls.model_fields})

    def to_bounds(self) -> Bounds:
        """Return the bounds."""
        return Bounds(**self.model_dump())


class UseView(BaseModel):
    """Bounds and their use: of this day and month (UTC) and in flight; ``allowed_now`` by the rate."""

    bounds: BoundsView
    day: float
    month: float
    in_flight: float
    allowed_now: float | None

    @classmethod
    def from_use(cls, use: BoundsUse) -> UseView:
        """Return the view of the use of bounds."""
        values = {name: getattr(use, name) for name in ("day", "month", "in_flight", "allowed_now")}
        return cls(bounds=BoundsView.from_bounds(use.bounds), **values)


class TeamView(BaseModel):
    """A team."""

    name: str
    weight: float
    bounds: BoundsView

    @classmethod
    def from_team(cls, team: Team) -> TeamView:
        """Return the view of a team."""
        return cls(name=team.name, weight=team.weight, bounds=BoundsView.from_bounds(team.bounds))


class UserView(BaseModel):
    """A user."""

    name: str
    team: str
    role: Role
    weight: float
    disabled: bool
    created: float
    bounds: BoundsView

    @classmethod
    def from_user(cls, user: User) -> UserView:
        """Return the view of a user."""
        values = {name: getattr(user, name) for name in cls.model_fields if name != "bounds"}
        return cls(**values, bounds=BoundsView.from_bounds(user.bounds))


class KeyView(BaseModel):
    """A key without its secret; ``signs``: it can sign requests of PAI's SDK."""

    id: str
    user: str
    name: str
    scopes: list[str]
    models: list[str]
    signs: bool
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None
    bounds: BoundsView

    @classmethod
    def from_key(cls, key: ApiKey) -> KeyView:
        """Return the view of a key."""
        values: dict[str, Any] = {name: getattr(key, name) for name in cls.model_fields if name != "bounds"}
        return cls(**values, bounds=BoundsView.from_bounds(key.bounds))


class NewKeyView(KeyView):
    """A key that was just made; ``key`` is shown this once."""

    key: str

    @classmethod
    def from_new(cls, new: NewKey) -> NewKeyView:
        """Return the view of a new key."""
        return cls(**KeyView.from_key(new.key).model_dump(), key=new.secret)


class NewUserView(UserView):
    """A user who was just made, with a first key."""

    first_key: NewKeyView


class MeView(BaseModel):
    """The caller of a request: its user, its key, its rights, and what bounds it."""

    user: str
    role: Role
    team: str
    key: str
    scopes: list[str]
    models: list[str]
    use: dict[str, UseView]


class SetUp(BaseModel):
    """A request for the first user, with the code from the gateway's log."""

    model_config = _STRICT

    code: str
    name: str


class NewUser(BaseModel):
    """A request for a user."""

    model_config = _STRICT

    name: str
    role: Role = Role.USER
    team: str = ""
    weight: float = 1.0


class UserChange(BaseModel):
    """Changes of a user; a missing member stays as it is."""

    model_config = _STRICT

    role: Role | None = None
    team: str | None = None
    weight: float | None = None
    disabled: bool | None = None
    bounds: BoundsView | None = None


class NewTeam(BaseModel):
    """A request for a team."""

    model_config = _STRICT

    name: str
    weight: float = 1.0


class TeamChange(BaseModel):
    """Changes of a team; a missing member stays as it is."""

    model_config = _STRICT

    weight: float | None = None
    bounds: BoundsView | None = None


class NewOwnKey(BaseModel):
    """A request for a key; without ``scopes`` it has all of its user's but the administration."""

    model_config = _STRICT

    name: str = ""
    scopes: list[str] = []
    models: list[str] = []
    days: float | None = Field(None, description="Days until it expires.", examples=[_EXAMPLE_DAYS])
    signs: bool = Field(False, description="Keep it readable, so that it can sign requests of PAI's SDK.")


class NewUsersKey(NewOwnKey):
    """A request for a key of any user."""

    user: str
