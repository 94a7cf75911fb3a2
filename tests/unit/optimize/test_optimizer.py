"""The background build: built, loaded and swapped in under load, or failed for one reason without side effects."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.waiting import WITHIN, until
from triton_diffusers.artifacts import ArtifactError
from triton_diffusers.engines import Engine
from triton_diffusers.engines.protocol import IncompatibleEngine
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.optimize.choice import NamedEngine
from triton_diffusers.optimize.optimizer import Optimizer, OptimizerState, build_command, build_environment
from triton_diffusers.optimize.policy import Target
from triton_diffusers.settings import Settings

TARGET = Target("openvino", "bfloat16")
BUILDING = "import time; print('triton-diffusers: compiling'); time.sleep(0.3)"
FAILING = "raise SystemExit('triton-diffusers: the disk is full')"


class OptimizedEngine(FakeEngine):
    optimized = True


@dataclass
class FakeChoice:
    missing: Target | None = TARGET
    made: str = "eager"
    load: Callable[[], FakeEngine] = OptimizedEngine

    def make_built(self, target: Target) -> NamedEngine:
        assert target == self.missing
        return NamedEngine(str(target), self.load())


@dataclass
class Heard:
    """An observer that records everything."""

    engines: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    failure: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def engine_changed(self, name: str) -> None:
        self.engines.append(name)

    def optimizer_changed(self, state: OptimizerState, target: Target | None, failure: str) -> None:
        with self.changed:
            self.states.append(state.value)
            self.failure = failure
            self.changed.notify_all()

    def wait_for(self, *states: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.states[-1] in states, WITHIN), f"it is still {self.states[-1]}"


def optimizer(choice: FakeChoice, swap: Callable[[Engine], None], heard: Heard, program: str = "") -> Optimizer:
    return Optimizer(choice, swap, [heard], lambda target: [sys.executable, "-c", program], os.environ)


def not_called(engine: Engine) -> None:
    raise AssertionError("there is nothing to swap")


def test_an_optimizer_without_a_target_stays_idle(caplog: pytest.LogCaptureFixture) -> None:
    optimizing = optimizer(FakeChoice(missing=None, made="openvino-float32"), not_called, heard := Heard())
    optimizing.start()
    optimizing.stop()
    assert (heard.engines, heard.states) == (["openvino-float32"], ["idle"])
    assert not caplog.records


def test_requests_during_a_build_all_succeed(
    start_loop: Callable[..., EngineLoop], caplog: pytest.LogCaptureFixture
) -> None:
    """Requests arrive continuously; from one of them on, all are served by the built engine."""
    caplog.set_level(logging.INFO, "triton_diffusers")
    loop = start_loop(FakeEngine())
    heard = Heard()
    optimizing = optimizer(
        FakeChoice(), loop.swap, heard, "import time; print('triton-diffusers: compiling'); time.sleep(0.3)"
    )
    jobs: list[Job] = [loop.submit(request_for(steps=2))]
    finish(loop, *jobs)
    optimizing.start()
    following = 0
    while following < 8:
        following += heard.states[-1] == "swapped"
        assert heard.states[-1] != "failed", heard.failure
        jobs.append(loop.submit(request_for(steps=4, seed=len(jobs))))
        loop.wait([jobs[-2]], WITHIN)
    finish(loop, *jobs)
    optimizing.stop()
    made_by = [job.result.optimized for job in jobs if job.result is not None]
    assert len(made_by) == len(jobs), "none has failed"
    assert made_by == sorted(made_by)
    assert set(made_by) == {False, True}
    assert heard.states == ["idle", "building", "ready", "swapped"]
    assert heard.engines == ["eager", "openvino-bfloat16"]
    assert [record.message for record in caplog.records] == [
        "openvino-bfloat16 is being built in the background; eager serves meanwhile",
        "build: compiling",
        "openvino-bfloat16 serves from now on",
    ]


def refuse(engine: Engine) -> None:
    raise IncompatibleEngine("its native_side is different")


def broken() -> FakeEngine:
    raise ArtifactError("openvino-bfloat16 is damaged: unet/model.bin has 3 bytes, not 4")


@pytest.mark.parametrize(
    ("program", "load", "swap", "states", "reason"),
    [
        (FAILING, broken, not_called, ["building"], "the disk is full"),
        (
            "import os; print('half way', flush=True); os.kill(os.getpid(), 9)", broken, not_called, ["building"],
            "it was killed; perhaps the machine ran out of memory",
        ),
        ("", broken, not_called, ["building", "ready"], "ArtifactError: openvino-bfloat16 is damaged: unet/model.bin"),
        ("", OptimizedEngine, refuse, ["building", "ready"], "IncompatibleEngine: its native_side is different"),
    ],
)  # fmt: skip
def test_a_failure_is_reported_with_one_reason(
    program: str,
    load: Callable[[], FakeEngine],
    swap: Callable[[Engine], None],
    states: list[str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    optimizing = optimizer(FakeChoice(load=load), swap, heard := Heard(), program)
    optimizing.start()
    heard.wait_for("failed")
    optimizing.stop()
    assert heard.states == ["idle", *states, "failed"]
    assert heard.engines == ["eager"]
    assert heard.failure.startswith(reason)
    (said,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.startswith(f"openvino-bfloat16 is not used, eager continues to serve: {reason}")


def test_a_stop_ends_the_build_and_is_not_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = tmp_path / "begun"
    program = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(600)"
    optimizing = optimizer(FakeChoice(), not_called, heard := Heard(), program)
    optimizing.start()
    until(begun.exists)
    optimizing.stop()
    assert heard.states == ["idle", "building"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_command_names_model_engine_and_precision(tmp_path: Path) -> None:
    settings = Settings(model_dir=tmp_path / "a model", cache_dir=tmp_path / "cache")
    command = build_command(settings, TARGET, force=False)
    assert Path(command[0]).name.startswith("python")
    assert command[1:] == [
        "-m", "triton_diffusers", "build", "--model", str(tmp_path / "a model"), "--wait", "--engine", "openvino",
        "--precision", "bfloat16",
    ]  # fmt: skip
    assert build_command(settings, Target("openvino"), force=True)[-2:] == ["openvino", "--force"]
    assert build_environment(settings)["TRITON_DIFFUSERS_CACHE_DIR"] == str(tmp_path / "cache")
