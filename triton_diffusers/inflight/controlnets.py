"""The ControlNets of a model directory, as requests take them and give them back."""

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
# Seconds that one without room waits before newcomers stand behind it.
_PATIENCE = 10.0


@dataclass(slots=True, eq=False)
class _Loaded:
    net: ControlNet
    holders: int = 0


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Who waits for memory: what it wants altogether, and since when (monotonic seconds)."""

    wants: frozenset[Identity]
    since: float


class Held:
    """ControlNets that a request has taken, one for each path that it named; to be given back once."""

    def __init__(self, nets: Sequence[ControlNet], give_back: Callable[[], None]) -> None:
        self.nets = tuple(nets)
        self._give_back = give_back

    def give_back(self) -> None:
        """Say that they are not used any more; more than once is no harm."""
        give_back, self._give_back = self._give_back, lambda: None
        give_back()


class ControlNets:
    """Loads ControlNets for one engine, and keeps those that were used last.

    What is kept and what is in use is bounded by the settings' memory together; one that has no room waits for
    requests that hold others to end, and once it has waited for ``patience`` seconds, no more of them get those. Called
    from any thread but the engine's, which must not wait for a file.
    """

    def __init__(
        self,
        reader: ControlNetReader,
        make: Callable[[ControlNetWeights], ControlNet],
        most_bytes: int,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        self._reader, self._make, self._most_bytes, self._patience = reader, make, most_bytes, patience
        # Guards the loaded ones, their holders and who waits; notified when some are given back.
        self._changed = threading.Condition()
        self._loaded: OrderedDict[Identity, _Loaded] = OrderedDict()
        self._waiter: _Waiter | None = None
        self._loading = threading.Lock()

    @classmethod
    def of(cls, settings: Settings, engine: Engine) -> ControlNets:
        """Those of the settings' model directory."""
        reader = ControlNetReader(
            settings.model_folder,
            engine.unet_config,
            pixels_per_latent=engine.pixels_per_latent,
            largest_file_bytes=settings.max_controlnet_megabytes * _MEGABYTE,
        )
        return cls(reader, engine.make_controlnet, settings.controlnet_cache_megabytes * _MEGABYTE)

    def take_loaded(self, paths: Sequence[str]) -> Held | None:
        """Those of these paths, if they are all loaded as the files are now, and nobody has waited too long for memory.

        Who gets none has to ``take`` them, in its turn. Raises as ``take`` does.
        """
        identities = [self._reader.identity(path) for path in paths]
        with self._changed:
            if not all(identity in self._loaded for identity in identities) or self._keeps_waiting(identities):
                return None
            return self._hold(identities)

    def take(self, paths: Sequence[str], is_given_up: Callable[[], bool]) -> Held:
        """Those of these paths, loaded one at a time; waits for memory until ``is_given_up``.

        Raises ``InvalidRequest`` or ``NotFound`` for a path without a ControlNet that fits the engine's checkpoint, and
        ``Cancelled`` if it was given up.
        """
        identities = [self._reader.identity(path) for path in paths]
        # One caller at a time: two that hold a part of what they want each would wait for one another.
        with self._loading:
            for path, identity in zip(paths, identities, strict=True):
                with self._changed:
                    if identity in self._loaded:
                        self._loaded.move_to_end(identity)
                        continue
                self._load(path, identity, keep=identities, is_given_up=is_given_up)
            with self._changed:
                return self._hold(identities)

    def wake(self) -> None:
        """Have whoever waits look whether its request is given up."""
        with self._changed:
            self._changed.notify_all()

    def _keeps_waiting(self, identities: Sequence[Identity]) -> bool:
        """Whether to hold these would keep somebody waiting who has waited long enough.

        Requests that overlap could hold them for ever. What the waiter itself wants stays loaded anyway.
        """
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.wants.issuperset(identities)
            and time.monotonic() - waiter.since >= self._patience
        )

    def _hold(self, identities: Sequence[Identity]) -> Held:
        held = [self._loaded[identity] for identity in identities]
        for identity, loaded in zip(identities, held, strict=True):
            loaded.holders += 1
            self._loaded.move_to_end(identity)
        # No method of this, which has the engine: a request may go on with another one, and must not keep this one.
        return Held([loaded.net for loaded in held], partial(_release, self._changed, held))

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
        # In a thread that ends: OpenMP's threads, with which weights are converted, live as long as their caller, and
        # slow the engine's down.
        with ThreadPoolExecutor(1, thread_name_prefix="controlnet") as own:
            net = own.submit(self._make, weights).result()
        with self._changed:
            self._loaded[identity] = _Loaded(net)
            self._make_room(0, keep)  # an engine may need more memory than the file
        logger.info("ControlNet %s loaded in %.1f s", path or "of the model directory", time.monotonic() - began)

    def _make_room(self, wanted: int, keep: Sequence[Identity]) -> bool:
        """Whether there is room for so many bytes, once what nobody uses or is about to (``keep``) is forgotten.

        There always is while no request holds anything: what cannot fit has to be tried.
        """
        for identity in [key for key, loaded in self._loaded.items() if not loaded.holders and key not in keep]:
            if self._fits(wanted):
                return True
            del self._loaded[identity]
        return self._fits(wanted) or not any(loaded.holders for loaded in self._loaded.values())

    def _fits(self, wanted: int) -> bool:
        return sum(loaded.net.nbytes for loaded in self._loaded.values()) + wanted <= self._most_bytes


def _release(changed: threading.Condition, held: Sequence[_Loaded]) -> None:
    with changed:
        for loaded in held:
            loaded.holders -= 1
        changed.notify_all()
