"""Watchdog of the model processes of a running server: reloads those that have died.

Triton continues to say that a model is ready when its process is dead, and answers every request with an error. So each
watched model has a thread here that looks at the process, sends the model's probe, and mends: unload, load, and load
again the ensembles that call it. The requests that a model process holds for an engine would then wait for ever, so its
death is the server's: the launcher starts that again, while the engine stays.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from triton_diffusers.launcher.endpoint import TritonEndpoint, TritonRefused
from triton_diffusers.launcher.probe import Health, Probe
from triton_diffusers.launcher.processes import ModelProcess, model_processes
from triton_diffusers.launcher.repository import Model, Repository
from triton_diffusers.util.backoff import backoff

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchTimes:
    """Intervals and limits, in seconds.

    A process that ended is seen within ``tick``, a model that answers with Triton's "not healthy" within ``interval``
    and the second that Triton needs. A model that neither answers nor makes progress is given ``hang``: far longer,
    because a busy model is not a dead one.
    """

    tick: float = 0.5
    interval: float = 2.0
    patience: float = 5.0
    hang: float = 60.0
    load: float = 1800.0
    calm: float = 60.0
    longest_delay: float = 60.0

    def delay(self, troubles: int) -> float:
        """Return the seconds to wait before the next repair, after ``troubles`` without a calm time between them."""
        return 0.0 if troubles == 0 else backoff(troubles - 1, first=1.0, longest=self.longest_delay)


class Watchdog:
    """Watchdog of every model of a repository that has a probe."""

    def __init__(
        self, repository: Repository, endpoint: TritonEndpoint, region_prefix: str, times: WatchTimes | None = None
    ) -> None:
        self._stopping = threading.Event()
        self._deaths: SimpleQueue[str] = SimpleQueue()
        repairing = threading.Lock()  # one at a time: two models may share an ensemble
        self._watches = [
            ModelWatch(
                model=model,
                dependents=repository.dependents(model.name),
                endpoint=endpoint,
                region_prefix=region_prefix,
                times=times or WatchTimes(),
                stopping=self._stopping,
                repairing=repairing,
                on_death=self._deaths.put,
            )
            for model in repository.watched
        ]
        # Daemons: a load under way must not keep the launcher from ending.
        self._threads = [
            threading.Thread(target=watch.run, name=f"watch {watch.model.name}", daemon=True) for watch in self._watches
        ]

    def start(self) -> None:
        """Start watching."""
        for thread in self._threads:
            thread.start()

    @property
    def fault(self) -> str:
        """Reason to restart the server; empty without one."""
        return "" if self._deaths.empty() else self._deaths.get()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=1.0)


class ModelWatch:
    """Watch of one model, in one thread."""

    def __init__(
        self,
        *,
        model: Model,
        dependents: tuple[str, ...],
        endpoint: TritonEndpoint,
        region_prefix: str,
        times: WatchTimes,
        stopping: threading.Event,
        repairing: threading.Lock,
        on_death: Callable[[str], None],
    ) -> None:
        """``on_death`` gets the fault of a model that cannot be mended by itself."""
        self.model = model
        self._on_death = on_death
        self._dependents = dependents
        self._endpoint = endpoint
        self._region_prefix = region_prefix
        self._times = times
        self._stopping = stopping
        self._repairing = repairing
        self._processes: frozenset[ModelProcess] = frozenset()
        self._probe: Probe | None = None
        self._next_probe = 0.0
        self._progress: tuple[int, ...] = ()
        self._moved = 0.0
        self._troubles = 0
        self._mended = 0.0
        self._said = Health.WELL

    def run(self) -> None:
        """Examine and mend until the server is stopped."""
        self._processes = self._living()
        while not self._stopping.is_set():
            try:
                fault = self._examine()
                if not fault or self._stopping.is_set():
                    continue
                if self.model.needs_engine:
                    self._drop_probe()
                    self._on_death(f"model {self.model.name} is dead: {fault}")
                    return
                self._mend(fault)
            except (OSError, TritonRefused) as error:
                # Without a server there is nothing to watch; the launcher notices its end.
                log.debug("%s could not be examined: %s", self.model.name, error)
                self._begin_again()
            except Exception:  # a watch that ends unseen is worse than one that complains
                log.exception("the watch of model %s continues after an unexpected error", self.model.name)
                self._begin_again()

    def _begin_again(self) -> None:
        self._drop_probe()
        self._stopping.wait(self._times.tick)

    def _examine(self) -> str | None:
        """Return what is wrong with the model, or None; takes about one tick."""
        if fault := self._examine_processes():
            return fault
        if self._probe is None:
            if (pause := self._next_probe - time.monotonic()) > 0:
                self._stopping.wait(min(pause, self._times.tick))
                return None
            self._next_probe = time.monotonic() + self._times.interval
            self._progress, self._moved = (), time.monotonic()
            self._probe = Probe(self._endpoint, self.model.name, self.model.probe or {})
        answer = self._probe.wait(self._times.tick)
        if answer is None:
            return self._examine_silence(self._probe.age)
        self._probe = None
        if answer.health is Health.DEAD:
            return answer.text
        if answer.health is Health.WELL and self._said is Health.UNLOADED:
            self._processes = self._living()
        self._say(answer.health, answer.text)
        return None

    def _examine_processes(self) -> str | None:
        ended = [process for process in self._processes if not process.is_alive]
        if not ended:
            return None
        living = self._living()
        if living - self._processes or not self._endpoint.is_model_ready(self.model.name):
            self._processes = living  # somebody has reloaded or unloaded the model: not a death
            return None
        return f"its process {ended[0].pid} has ended"

    def _examine_silence(self, age: float) -> str | None:
        if age < self._times.patience or not self._times.hang:
            return None
        now, progress = time.monotonic(), self._endpoint.progress(self.model.name)
        if progress != self._progress:
            self._progress, self._moved = progress, now
        if now - self._moved < self._times.hang:
            return None
        return f"no answer for {age:.0f} s, and no progress either"

    def _say(self, health: Health, text: str) -> None:
        """Log a change once, not at every probe."""
        if health is self._said:
            return
        if health is Health.UNLOADED:
            log.warning("model %s is not loaded (%s); it is watched again once it is", self.model.name, text)
        elif health is Health.REFUSED:
            log.warning("model %s lives, but refuses its probe: %s", self.model.name, text)
        else:
            log.info("model %s answers its probe again", self.model.name)
        self._said = health

    def _mend(self, fault: str) -> None:
        """Reload the model; return when it answers, or when the server is stopped."""
        noticed = time.monotonic()
        if noticed - self._mended > self._times.calm:
            self._troubles = 0
        self._drop_probe()
        dependents = self._ready_dependents()
        delay = self._times.delay(self._troubles)
        log.error("model %s is dead: %s; it is brought back %s", self.model.name, fault, when(delay))
        while not self._stopping.wait(delay):
            self._troubles += 1
            try:
                with self._repairing:
                    self._reload(dependents)
            except (OSError, TritonRefused) as error:
                if self._stopping.is_set():  # the server is stopping; the repair has not failed
                    return
                delay = self._times.delay(self._troubles)
                log.error(
                    "model %s could not be brought back (attempt %d): %s; the next attempt is %s",
                    self.model.name, self._troubles, error, when(delay),
                )  # fmt: skip
                continue
            self._mended = time.monotonic()
            self._next_probe = self._mended + self._times.interval
            seconds = self._mended - noticed
            log.warning("model %s answers again, %.1f s after its death was noticed", self.model.name, seconds)
            return

    def _reload(self, dependents: tuple[str, ...]) -> None:
        # A hung process would keep its requests, and so prevent unloading, for ever.
        for process in self._living():
            process.kill()
        with contextlib.suppress(TritonRefused):  # already unloaded, by an attempt that failed after this step
            self._endpoint.unload(self.model.name)
        self._endpoint.load(self.model.name, timeout=self._times.load)
        self._processes = self._living()
        self._prove()
        for ensemble in dependents:
            self._endpoint.load(ensemble, timeout=self._times.load)

    def _prove(self) -> None:
        """Probe the new process. Raises ``TritonRefused`` if it does not answer."""
        probe = Probe(self._endpoint, self.model.name, self.model.probe or {})
        try:
            while probe.age < (self._times.hang or self._times.load) and not self._stopping.is_set():
                if (answer := probe.wait(self._times.tick)) is not None:
                    if answer.health in (Health.DEAD, Health.UNLOADED):
                        raise TritonRefused(answer.text)
                    return
            raise TritonRefused(f"loaded, but no answer within {probe.age:.0f} s")
        finally:
            probe.close()

    def _ready_dependents(self) -> tuple[str, ...]:
        """Return the ensembles to load again: those that were loaded before."""
        try:
            return tuple(name for name in self._dependents if self._endpoint.is_model_ready(name))
        except OSError:
            return self._dependents

    def _living(self) -> frozenset[ModelProcess]:
        return model_processes(self._region_prefix, self.model.name)

    def _drop_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def when(delay: float) -> str:
    """Return a delay in words."""
    return f"in {delay:.0f} s" if delay else "now"
