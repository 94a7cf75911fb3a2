"""The engine policy of the settings ``engine`` and ``optimize``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triton_diffusers.settings import PREFIX, Settings, SettingsError

AUTO = "auto"
EAGER = "eager"
OFF = "off"

# Images in these differ from the eager engine's by rounding only; others serve only where a setting names them.
_EXACT = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Target:
    """A compiled engine; ``precision=None`` means any lossless precision, or the hardware's default for a build."""

    engine: str
    precision: str | None = None

    def __str__(self) -> str:
        return f"{self.engine}-{self.precision}" if self.precision else self.engine

    def covers(self, engine: str, precision: str) -> bool:
        """Return True if an artifact of this engine and precision matches."""
        return self.engine == engine and (precision == self.precision if self.precision else precision in _EXACT)


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """The engines that may serve.

    ``engine`` is None for ``auto`` and ``eager``; ``build`` is the engine to build if it is missing.
    """

    compiled: bool
    engine: Target | None
    build: Target | None

    @classmethod
    def read(cls, settings: Settings, compilers: Mapping[str, Sequence[str]]) -> EnginePolicy:
        """Return the policy of ``settings``; ``compilers`` maps the compilers that exist to their precisions.

        Raises: SettingsError: a value is unknown, or the settings contradict each other.
        """
        engine = None if settings.engine in (AUTO, EAGER) else _target(settings, "engine", compilers, AUTO, EAGER)
        if settings.optimize == OFF:
            return cls(settings.engine != EAGER, engine, None)
        build = _target(settings, "optimize", compilers, OFF)
        if settings.engine == EAGER or (engine is not None and not _agree(engine, build)):
            raise SettingsError(
                f"{PREFIX}OPTIMIZE: {settings.optimize!r} is invalid with {PREFIX}ENGINE={settings.engine}: "
                f"the engine built would not be used; set {PREFIX}ENGINE=auto"
            )
        return cls(True, engine, engine if engine is not None and engine.precision else build)

    def covers(self, engine: str, precision: str) -> bool:
        """Return True if an artifact of this engine and precision may serve."""
        if not self.compiled:
            return False
        return self.names(engine, precision) or (self.engine is None and precision in _EXACT)

    def names(self, engine: str, precision: str) -> bool:
        """Return True if a setting names this engine, rather than only ``auto``."""
        return any(target.covers(engine, precision) for target in (self.engine, self.build) if target is not None)


def _agree(engine: Target, build: Target) -> bool:
    return engine.engine == build.engine and (None in (engine.precision, build.precision) or engine == build)


def _target(settings: Settings, setting: str, compilers: Mapping[str, Sequence[str]], *others: str) -> Target:
    value: str = getattr(settings, setting)
    name = f"{PREFIX}{setting.upper()}"
    engine, dash, precision = value.partition("-")
    if engine not in compilers:
        raise SettingsError(
            f"{name}: {value!r} is invalid: expected {', '.join((*others, *compilers))}, "
            f"or one of the compilers with a precision, such as {next(iter(compilers))}-float32"
        )
    known = compilers[engine]
    if dash and precision not in known:
        raise SettingsError(f"{name}: {value!r} is invalid: {engine} has {', '.join(known)}")
    if not precision and settings.dtype != AUTO:
        if settings.dtype not in known:
            raise SettingsError(
                f"{name}: {value!r} is invalid with {PREFIX}DTYPE={settings.dtype}: {engine} has {', '.join(known)}"
            )
        precision = settings.dtype
    return Target(engine, precision or None)
