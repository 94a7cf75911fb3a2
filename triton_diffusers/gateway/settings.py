"""The operator's settings of the gateway and the runner: environment variables ``TRITON_DIFFUSERS_GATEWAY_<NAME>``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from triton_diffusers.settings import PREFIX, CommaSeparated, SettingsError
from triton_diffusers.util.state_dir import state_dir

GATEWAY_PREFIX = f"{PREFIX}GATEWAY_"


Model = Literal["ensemble", "ensemble_controlnet", "sd_base", "sd_controlnet"]


_ANY_NAME = "*"


class NamedService(BaseModel):
    """A service that clients of PAI-EAS address by its name.

    An empty ``model`` is one that has the request's fields. An ``async`` service answers with a place in its queue, and
    appends results to its sink. With a ``token`` callers have to show it.
    """

    model_config = ConfigDict(frozen=True)

    model: Literal["", Model] = ""
    mode: Literal["sync", "async"] = "sync"
    token: str = Field("", repr=False)


def _services(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    return {name.strip(): _service(text.strip()) for name, _, text in pairs}


def _service(text: str) -> dict[str, str]:
    model, _, rest = text.partition(":")
    mode, _, token = rest.partition(":")
    return {"model": model.strip(), "mode": mode.strip() or "sync", "token": token.strip()}


Services = Annotated[dict[str, NamedService], NoDecode, BeforeValidator(_services)]


class GatewaySettings(BaseSettings):
    """Settings of the gateway. Sizes are in bytes or megabytes (10⁶ bytes), times in seconds."""

    model_config = SettingsConfigDict(env_prefix=GATEWAY_PREFIX, frozen=True)

    database: str = Field(
        "",
        repr=False,
        description="Job table: `sqlite:///file` or `postgresql://…`. Empty: `jobs.sqlite` in `state_dir`.",
    )
    state_dir: Path = Field(
        default_factory=state_dir,
        description="Directory of the job table and of the key that signs URLs of results and webhooks.",
    )
    secret: str = Field(
        "",
        repr=False,
        description="Key that signs URLs of results and webhooks, the same for all gateways of a fleet. Empty: a random"
        " one, kept in `state_dir`.",
    )
    public_url: str = Field(
        "",
        description="Base of the URLs in replies, such as `https://images.example.com`. Empty: the request's host.",
    )
    allowed_hosts: CommaSeparated = Field(
        (),
        description="Comma-separated host names that requests may be for. Empty: any, or only this machine's names"
        " where the gateway listens on loopback.",
    )
    services: Services = Field(
        {},
        description="Comma-separated services of [clients of PAI-EAS](eas.md), `name=model:mode:token`, such as"
        " `diffuser_base_ch_async=ensemble:async`. Empty or missing parts: the model that has the request's fields;"
        " `sync`; no token. The name `*` stands for all others. Unless it says more, they take"
        " `ensemble_controlnet` if `control` is part of the name, and are `async` if it ends with `_async`.",
    )
    styles_file: Path | None = Field(
        None, description="Prompt styles for clients of A1111's API: its `styles.csv`. Empty: none."
    )
    open: bool = Field(
        False,
        description="Require no key while no user exists, on addresses other than loopback too. Only for gateways"
        " behind a proxy that authenticates callers, such as that of PAI-EAS.",
    )
    url_seconds: float = Field(86_400.0, gt=0, description="How long the URL of a result is valid.")
    sync_seconds: float = Field(
        3600.0, gt=0, description="How long a synchronous request waits for its job, which is then cancelled."
    )
    leave_seconds: float = Field(
        2.0,
        ge=0,
        description="How long a job runs on when the caller of a synchronous request has hung up; one who sends the"
        " same request again in this time gets its result.",
    )
    max_wait_seconds: float = Field(60.0, ge=0, description="Upper limit of `?wait=` of a job.")
    max_body_megabytes: float = Field(96.0, gt=0, description="Largest request body.")
    max_bodies_megabytes: float = Field(
        512.0,
        gt=0,
        description="Sum of the bodies of all requests in progress; a request above it is rejected. Reading a body of"
        " JSON takes three to six times its size of memory for a moment.",
    )
    body_seconds: float = Field(60.0, gt=0, description="How long a caller may take to send a request body.")
    header_seconds: float = Field(15.0, gt=0, description="How long a caller may take to send a request's headers.")
    read_seconds: float = Field(
        60.0, gt=0, description="How long a caller may read nothing of a response, before the connection is dropped."
    )
    max_connections: int = Field(1000, ge=1, description="Maximum number of connections of one gateway.")
    max_address_requests: int = Field(
        250,
        ge=1,
        description="Maximum number of requests of one address that are in progress, streams and waiting callers among"
        " them. Behind a proxy, `FORWARDED_ALLOW_IPS` names the proxy's address, so that the callers' own count.",
    )
    max_batch_jobs: int = Field(100, ge=1, le=1000, description="Maximum number of jobs in one request.")
    max_failed_attempts: int = Field(
        30, ge=1, description="Maximum number of wrong keys of one address in a minute; more are not looked at."
    )
    max_queued: int = Field(
        1000, ge=1, description="Maximum number of queued jobs of one owner; another one is rejected as busy."
    )

    webhook_seconds: float = Field(10.0, gt=0, description="How long a webhook's receiver may take to answer.")
    webhook_retry_seconds: float = Field(
        86_400.0, ge=0, description="How long a webhook is tried again, after growing pauses; then it has failed."
    )
    webhook_places: int = Field(
        32,
        ge=1,
        le=256,
        description="Webhooks that one gateway delivers at once; an eighth of them to one host, half of them for one"
        " owner.",
    )

    @classmethod
    def read(cls) -> GatewaySettings:
        """Read the environment. Raises ``SettingsError``."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).upper()
            raise SettingsError(f"{GATEWAY_PREFIX}{name}: {first['input']!r} is invalid: {first['msg']}") from error

    def service(self, name: str) -> NamedService:
        """Return the service of a name, which need not be listed."""
        if name in self.services:
            return self.services[name]
        lower, other = name.lower(), self.services.get(_ANY_NAME, NamedService())
        return NamedService(
            model=other.model or ("ensemble_controlnet" if "control" in lower else ""),
            mode="async" if lower.endswith("_async") else other.mode,
            token=other.token,
        )

    @property
    def database_url(self) -> str:
        """Return the URL of the job table."""
        return self.database or f"sqlite:///{(self.state_dir / 'jobs.sqlite').expanduser().absolute()}"
