"""The choice of the engine that serves, and the log messages for artifacts that cannot be used."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.optimize.fakes import FakeCompiler, Loaded, Loading, Model, choice_of, warnings
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.engines.compilers import COMPILERS, caches_of
from triton_diffusers.optimize import choice as choice_module
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.optimize.policy import Target
from triton_diffusers.settings import Settings
from triton_diffusers.util.notice import NOTICE

pytestmark = pytest.mark.usefixtures("fakes")


def test_without_artifacts_eager_serves_and_nothing_is_logged(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    choice = choice_of(model)
    assert not choice.make().optimized
    assert (choice.made, choice.missing, choice.needs_force) == ("eager", None, False)
    assert not warnings(caplog)


def test_auto_takes_the_fastest_lossless_artifact(model: Model) -> None:
    model.add(1.5, precision="float32")
    model.add(2.5, precision="bfloat16")
    model.add(9.0, precision="int8")
    choice = choice_of(model)
    engine = choice.make()
    assert isinstance(engine, Loaded)
    assert (choice.made, engine.name) == ("openvino-bfloat16", "openvino-bfloat16")
    folder = model.store.root / "openvino-bfloat16"
    assert engine.folders == {"unet": folder / "unet", "vae_decoder": folder / "vae_decoder"}
    assert choice.missing is None


def test_caches_of_graphs_belong_to_the_artifacts_files(model: Model, tmp_path: Path) -> None:
    artifact = model.add()
    caches = choice_of(model, cache_dir=str(tmp_path / "cache")).make().caches
    assert caches == caches_of(tmp_path / "cache", artifact.folder, artifact.manifest.graphs)
    assert all(cache.content for cache in caches.values())


def test_make_uses_the_graphs_that_begin_started(model: Model) -> None:
    model.add(1.5, precision="float32")
    model.add(2.5, precision="bfloat16")
    choice = choice_of(model)
    assert Loading.begun == []
    choice.begin()
    assert Loading.begun == ["openvino-bfloat16"]
    assert choice.make().optimized
    assert choice.made == "openvino-bfloat16"
    assert Loading.begun == ["openvino-bfloat16"]


def test_begin_without_artifacts_starts_nothing(model: Model) -> None:
    choice = choice_of(model)
    choice.begin()
    assert Loading.begun == []
    assert not choice.make().optimized


def test_graphs_that_cannot_start_loading_leave_eager_serving(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    model.add()
    monkeypatch.setattr(choice_module, "LoadingGraphs", fail)
    choice = choice_of(model)
    choice.begin()
    assert not choice.make().optimized
    assert warnings(caplog) == ["not used: openvino-bfloat16 cannot be loaded: can't start new thread"]


def test_a_choice_imports_no_heavy_libraries() -> None:
    """It is made at the start, so that graphs load while the rest is imported."""
    code = "import sys, triton_diffusers.optimize.choice; print({'diffusers', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"engine": "eager"}, "eager"),
        ({"engine": "inductor"}, "eager"),
        ({"engine": "openvino-float32"}, "openvino-float32"),
        ({"engine": "openvino-int8"}, "openvino-int8"),
        ({"optimize": "openvino-int8"}, "openvino-int8"),
        ({"optimize": "openvino-float32"}, "openvino-float32"),
        ({"optimize": "inductor"}, "openvino-bfloat16"),
    ],
)
def test_the_engine_named_by_a_setting_serves(model: Model, settings: dict[str, str], name: str) -> None:
    for precision, speed_up in {"float32": 1.5, "bfloat16": 2.5, "int8": 9.0}.items():
        model.add(speed_up, precision=precision)
    choice = choice_of(model, **settings)
    assert choice.make().optimized == (name != "eager")
    assert choice.made == name


def test_a_program_in_a_model_directory_runs_only_where_its_engine_is_named(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.add(9.0, engine="inductor", versions=FakeCompiler().versions())
    choice = choice_of(model)
    assert not choice.make().optimized
    (said,) = warnings(caplog)
    assert (
        "inductor-bfloat16 is a program; if you trust its builder, name it to use it: TRITON_DIFFUSERS_ENGINE=" in said
    )
    for settings in ({"engine": "inductor"}, {"engine": "inductor-bfloat16"}, {"optimize": "inductor"}):
        choice = choice_of(model, **settings)
        assert choice.make().optimized, settings
        assert choice.made == "inductor-bfloat16"


@pytest.mark.parametrize(
    ("speed_up", "settings", "serves", "reason"),
    [
        (0.8, {}, False, "is slower than the eager engine (0.80 times as fast when it was built); name it to use it: "),
        (0.8, {"engine": "openvino"}, True, ""),
        (0.8, {"optimize": "openvino"}, True, ""),
        (0.0, {}, True, ""),  # it was not measured
        (2.0, {"dtype": "float32"}, False, "has another precision than TRITON_DIFFUSERS_DTYPE=float32; name it to use"),
        (2.0, {"dtype": "bfloat16"}, True, ""),
        (2.0, {"dtype": "float32", "engine": "openvino-bfloat16"}, True, ""),
        (2.0, {"device": "cpu"}, True, ""),
        (2.0, {"device": "cuda"}, False, "runs on cpu, and the device is cuda (TRITON_DIFFUSERS_DEVICE=cuda)"),
        (2.0, {"device": "cuda", "engine": "openvino"}, False, "runs on cpu, and the device is cuda"),
    ],
)
def test_settings_and_figures_decide_if_an_artifact_serves(
    model: Model,
    speed_up: float,
    settings: dict[str, str],
    serves: bool,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model.add(speed_up, precision="bfloat16")
    choice = choice_of(model, **settings)
    assert choice.make().optimized == serves
    said = warnings(caplog)
    assert bool(said) != serves
    if reason:
        assert said[0].startswith("not used: openvino-bfloat16 ")
        assert reason in said[0]


def test_the_serving_engine_is_logged(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    model.add(precision="float32")
    caplog.set_level(logging.INFO, logger="triton_diffusers.optimize")
    for settings, level, text in [
        ({}, NOTICE, "openvino-float32 serves on cpu"),
        ({"engine": "eager"}, NOTICE, "eager serves on cpu"),
        ({"engine": "openvino-int8", "optimize": "openvino"}, NOTICE, "eager serves on cpu"),
        ({"engine": "openvino-int8"}, logging.WARNING, "openvino-int8 was requested, but no artifact can be used; "),
        (
            {"engine": "inductor"},
            logging.WARNING,
            "inductor was requested, but no artifact can be used; eager serves",
        ),
    ]:
        caplog.clear()
        choice_of(model, **settings).make()
        assert [record.levelno for record in caplog.records] == [level]
        assert caplog.records[0].getMessage().startswith(text)


def test_an_unreadable_store_is_logged(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    model.store.root.symlink_to(model.store.root)
    assert not choice_of(model).make().optimized
    (said,) = warnings(caplog)
    assert said.startswith(f"no compiled engine is used: {model.store.root} cannot be read: ")


def test_a_missing_compiler_is_left_to_the_build_to_report(model: Model) -> None:
    """The build fails with the reason; meanwhile the existing engine serves."""
    model.add()
    choice = choice_of(model, optimize="blade")
    assert choice.make().optimized
    assert (choice.missing, choice.needs_force) == (Target("blade"), False)


def test_artifacts_are_code_is_set_for_inductor_only() -> None:
    assert not COMPILERS["openvino"].artifacts_are_code
    assert COMPILERS["inductor"].artifacts_are_code


@pytest.mark.parametrize(
    ("there", "optimize", "missing"),
    [
        (None, "openvino", Target("openvino")),
        ("bfloat16", "openvino", None),
        ("float32", "openvino", Target("openvino")),  # it serves until the hardware's own precision is built
        ("float32", "openvino-float32", None),
        ("bfloat16", "openvino-int8", Target("openvino", "int8")),
        ("bfloat16", "inductor", Target("inductor")),
    ],
)
def test_missing_is_the_engine_to_build(model: Model, there: str | None, optimize: str, missing: Target | None) -> None:
    if there:
        model.add(precision=there)
    choice = choice_of(model, optimize=optimize)
    assert choice.make().optimized == (there is not None)
    assert choice.missing == missing


def test_a_missing_model_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(settings: Settings) -> None:
        raise LoadError("there is no model")

    monkeypatch.setattr(choice_module, "load_components", load)
    with pytest.raises(LoadError):
        EngineChoice(Settings(model_dir=tmp_path)).make()
