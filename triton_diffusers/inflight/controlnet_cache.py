"""Cache of loaded ControlNets, leased to requests."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from triton_diffusers.adapters.controlnet import ControlNetReader, ControlNetWeights, Identity
from triton_diffusers.engines import ControlNet, Engine
from triton_diffusers.errors import Cancelled
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

_MEGABYTE = 2**20
# A request that has waited this long for memory goes before newer ones.
_PATIENCE_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class _Loaded:
    net: ControlNet
    holders: int = 0


@dataclass(frozen=True, slots=True)
class _Waiter:
    """A request waiting for memory: its ControlNets and its start of waiting (monotonic seconds)."""

    wants: frozenset[Identity]
    since: float


class ControlNetLease:
    """ControlNets in use by a request, one per path, in order; release once."""

    def __init__(self, nets: Sequence[ControlNet], release: Callable[[], None]) -> None:
        self.nets = tuple(nets)
        self._release = release

    def release(self) -> None:
        """Return the ControlNets to the cache; repeated calls have no effect."""
        release, self._release = self._release, lambda: None
        release()


class ControlNetCache:
    """LRU cache of the ControlNets of one engine.

    Cached and leased ControlNets share one memory bound. A request without room waits for others to release theirs;
    after ``patience`` seconds, newer requests get no more of those. Not for the engine's thread, which must not wait
    for files.
    """

    def __init__(
        self,
        reader: ControlNetReader,
        make: Callable[[ControlNetWeights], ControlNet],
        most_bytes: int,
        *,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._reader, self._make, self._most_bytes, self._patience = reader, make, most_bytes, patience
        # Guards the collections below; notified on release.
        self._changed = threading.Condition()
        self._loaded: OrderedDict[Identity, _Loaded] = OrderedDict()
        self._waiter: _Waiter | None = None
        self._loading = threading.Lock()

    @classmethod
    def for_engine(cls, settings: Settings, engine: Engine) -> ControlNetCache:
        """Return the cache for the model directory of ``settings``."""
        reader = ControlNetReader(
            settings.model_folder,
            engine.family.denoiser_config,
            pixels_per_latent=engine.family.latents.pixels,
            max_file_bytes=settings.max_controlnet_megabytes * _MEGABYTE,
        )
        return cls(reader, engine.make_controlnet, settings.controlnet_cache_megabytes * _MEGABYTE)

    def acquire_loaded(self, paths: Sequence[str]) -> ControlNetLease | None:
        """Return a lease if all paths are loaded, unchanged on disk, and no other request waits too long; else None.

        Callers without a lease use ``acquire``. Raises as ``acquire``.
        """
        identities = [self._reader.identity(path) for path in paths]
        with self._changed:
            if not all(identity in self._loaded for identity in identities) or self._keeps_waiting(identities):
                return None
            return self._lease(identities)

    def acquire(self, paths: Sequence[str], is_given_up: Callable[[], bool]) -> ControlNetLease:
        """Return a lease, loading what is missing one by one; wait for memory until ``is_given_up``.

        Raises:
            InvalidRequest: a file is not a ControlNet for the engine's checkpoint.
            NotFound: a path does not exist.
            Cancelled: the wait was given up.
        """
        identities = [self._reader.identity(path) for path in paths]
        # One caller at a time: two that each lease a part of their ControlNets would deadlock.
        with self._loading:
            for path, identity in zip(paths, identities, strict=True):
                with self._changed:
                    if identity in self._loaded:
                        self._loaded.move_to_end(identity)
                        continue
                self._load(path, identity, keep=identities, is_given_up=is_given_up)
            with self._changed:
                return self._lease(identities)

    def wake(self) -> None:
        """Make waiting callers check ``is_given_up``."""
        with self._changed:
            self._changed.notify_all()

    def _keeps_waiting(self, identities: Sequence[Identity]) -> bool:
        """Return True if leasing these would starve a request that has exceeded its patience.

        Overlapping requests could lease them forever. The waiter's own ControlNets stay loaded in any case.
        """
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.wants.issuperset(identities)
            and time.monotonic() - waiter.since >= self._patience
        )

    def _lease(self, identities: Sequence[Identity]) -> ControlNetLease:
        leased = [self._loaded[identity] for identity in identities]
        for identity, loaded in zip(identities, leased, strict=True):
            loaded.holders += 1
            self._loaded.move_to_end(identity)
        # Not a bound method: a lease must not keep a replaced engine alive through this cache.
        return ControlNetLease([loaded.net for loaded in leased], partial(_release, self._changed, leased))

    def _load(
        self, path: str, identity: Identity, *, keep: Sequence[Identity], is_given_up: Callable[[], bool]
    ) -> None:
        began = time.monotonic()
        weights = self._reader.read(path)
        with self._changed:
            self._waiter = _Waiter(frozenset(keep), time.monotonic())
            self._changed.wait_for(lambda: self._make_room(weights.nbytes, keep) or is_given_up())
            self._waiter = None
            if is_given_up():
                raise Cancelled("the job was cancelled")
        # In a short-lived thread: the OpenMP pool that converts weights lives as long as its caller, and would slow the
        # engine's pool down.
        with ThreadPoolExecutor(1, thread_name_prefix="controlnet") as own:
            net = own.submit(self._make, weights).result()
        with self._changed:
            self._loaded[identity] = _Loaded(net)
            self._make_room(0, keep)  # a loaded ControlNet may be larger than its file
        logger.info("ControlNet %s loaded in %.1f s", path or "of the model directory", time.monotonic() - began)

    def _make_room(self, wanted: int, keep: Sequence[Identity]) -> bool:
        """Evict unused ControlNets except ``keep``; return True if ``wanted`` bytes fit.

        True as well if nothing is leased: waiting could not free any more memory.
        """
        for identity in [key for key, loaded in self._loaded.items() if not loaded.holders and key not in keep]:
            if self._fits(wanted):
                return True
            del self._loaded[identity]
        return self._fits(wanted) or not any(loaded.holders for loaded in self._loaded.values())

    def _fits(self, wanted: int) -> bool:
        return sum(loaded.net.nbytes for loaded in self._loaded.values()) + wanted <= self._most_bytes


def _release(changed: threading.Condition, leased: Sequence[_Loaded]) -> None:
    with changed:
        for loaded in leased:
            loaded.holders -= 1
        changed.notify_all()
