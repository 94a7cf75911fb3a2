"""The choice of the engine that serves, and the log messages for artifacts that cannot be used."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.unit.artifacts.samples import FIGURES, made, manifest_of
from tests.unit.conftest import ROOT
from tests.unit.fake_engine import FakeEngine
from triton_diffusers.artifacts import Artifact, ArtifactError, ArtifactStore, fingerprint
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.engines import compiled
from triton_diffusers.engines.compilers import COMPILERS, GraphCache, caches_of
from triton_diffusers.optimize import choice as choice_module
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.optimize.policy import Target
from triton_diffusers.settings import Settings
from triton_diffusers.util.notice import NOTICE


class FakeCompiler:
    """A compiler for this machine."""

    precisions = ("bfloat16", "float32", "int8")
    device = "cpu"
    artifacts_are_code = False

    def machine(self) -> str:
        return "x86-64 avx512"

    def versions(self) -> Mapping[str, str]:
        return {"openvino": "2026.4.1"}


class FakeCompilerOfPrograms(FakeCompiler):
    """A compiler whose artifacts are programs."""

    artifacts_are_code = True


class Compilers(dict[str, type[FakeCompiler]]):
    """A registry in which all other compilers need packages that are not installed."""

    def __missing__(self, name: str) -> type[FakeCompiler]:
        raise ImportError(f"compiled engine {name!r} needs a package")


class Loading:
    """An artifact's loading graphs; ``begun`` holds the names of all that have started."""

    begun: ClassVar[list[str]] = []

    def __init__(
        self, engine: str, precision: str, folders: Mapping[str, Path], caches: Mapping[str, GraphCache]
    ) -> None:
        self.name, self.folders, self.caches = f"{engine}-{precision}", folders, caches
        self.begun.append(self.name)


class Loaded(FakeEngine):
    """The engine of an artifact."""

    optimized = True

    def __init__(self, graphs: Loading) -> None:
        super().__init__()
        self.name = graphs.name
        self.folders, self.caches = graphs.folders, graphs.caches


class Model:
    """A model directory with a real base model and artifacts of a few bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = ROOT / "models" / "emoji" / "base_model"
        for component in ("unet", "vae", "text_encoder"):
            (folder / "base_model" / component).mkdir(parents=True)
            shutil.copy(base / component / "config.json", folder / "base_model" / component)
            (folder / "base_model" / component / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
        shutil.copy(base / "model_index.json", folder / "base_model")
        self.store = ArtifactStore(folder / "optimized_model")

    def add(self, speed_up: float = 2.0, **changes: Any) -> Artifact:
        """Place an artifact that fits, except for the changes."""
        self.store.root.mkdir(exist_ok=True)
        figures = FIGURES.model_copy(update={"seconds_per_step": 1.0, "eager_seconds_per_step": speed_up})
        folder = made(self.store.root / ".new")
        fields = {"fingerprint": fingerprint(self.folder), "figures": figures, **changes}
        return self.store.place(folder, manifest_of(folder, **fields))

    def change(self) -> None:
        """Replace the weights."""
        (self.folder / "base_model" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"other weights")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path / "model")


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(settings: Settings, graphs: Loading) -> Loaded:
        if (graphs.folders["unet"] / "model.xml").read_bytes() == b"not what it reads":
            raise RuntimeError("Cannot create\nthe network")
        return Loaded(graphs)

    monkeypatch.setattr(compiled, "load_compiled", load)
    monkeypatch.setattr(choice_module, "LoadingGraphs", Loading)
    monkeypatch.setattr(Loading, "begun", [])
    monkeypatch.setattr(choice_module, "load_components", lambda settings: None)
    monkeypatch.setattr(choice_module, "ENGINES", {"eager": lambda components: FakeEngine()})
    compilers = Compilers(openvino=FakeCompiler, inductor=FakeCompilerOfPrograms)
    monkeypatch.setattr(choice_module, "COMPILERS", compilers)


def choice_of(model: Model, **settings: str) -> EngineChoice:
    return EngineChoice(Settings(model_dir=model.folder, **settings))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


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


def _truncate(model: Model, artifact: Artifact) -> None:
    (artifact.folder / "unet" / "model.bin").write_bytes(b"wei")


def _overwrite(model: Model, artifact: Artifact) -> None:
    (artifact.folder / "unet" / "model.bin").write_bytes(b"WEIGHTS")


def _spoil_the_manifest(model: Model, artifact: Artifact) -> None:
    (artifact.folder / "manifest.json").write_text("{")


def _train_on(model: Model, artifact: Artifact) -> None:
    model.change()


@pytest.mark.parametrize(
    ("changes", "harm", "reason", "force"),
    [
        ({}, _truncate, "openvino-bfloat16 is damaged: unet/model.bin has 3 bytes, not 7", False),
        ({}, _overwrite, "openvino-bfloat16 is damaged: unet/model.bin is damaged: its checksum is different", True),
        ({"precision": "float32"}, _overwrite, "openvino-float32 is damaged: unet/model.bin is damaged", False),
        ({}, _spoil_the_manifest, "manifest.json is damaged: it is not a manifest", False),
        ({}, _train_on, "openvino-bfloat16 was built from another model", False),
        ({"machine": "aarch64"}, None, "openvino-bfloat16 was built for another machine", False),
        ({"versions": {"openvino": "2025.0"}}, None, "another version of openvino (2025.0; this is 2026.4.1)", False),
    ],
)
def test_an_unusable_artifact_is_logged_with_the_reason(
    model: Model,
    changes: dict[str, Any],
    harm: Callable[[Model, Artifact], None] | None,
    reason: str,
    force: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A forced build discards finished parts of an interrupted one: only where the build itself sees no fault."""
    artifact = model.add(**changes)
    if harm is not None:
        harm(model, artifact)
    choice = choice_of(model, optimize="openvino")
    assert not choice.make().optimized
    assert choice.made == "eager"
    assert choice.missing == Target("openvino")
    assert choice.needs_force == force
    (said,) = warnings(caplog)
    assert said.startswith("not used: ")
    assert reason in said
    assert "\n" not in said


@pytest.mark.parametrize("early", [False, True])
def test_the_next_best_replaces_an_artifact_that_cannot_be_loaded(
    model: Model, early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = model.add(9.0, precision="bfloat16")
    folder = made(model.store.root / ".new", {"unet/model.xml": b"not what it reads"})
    model.store.place(folder, manifest_of(folder, fingerprint=artifact.manifest.fingerprint))
    model.add(1.5, precision="float32")
    choice = choice_of(model)
    if early:
        choice.begin()
    assert choice.make().optimized
    assert choice.made == "openvino-float32"
    assert warnings(caplog) == ["not used: openvino-bfloat16 cannot be loaded: Cannot create the network"]
    assert not choice.needs_force, "nothing is to be built"


def test_an_artifact_that_fails_its_trial_leaves_the_next_best_serving(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.add(9.0, precision="bfloat16")

    def try_out(engine: Any) -> None:
        if engine.optimized:
            raise LoadError("its unet failed the trial")

    choice = choice_of(model)
    assert not choice.make(try_out).optimized
    assert choice.made == "eager"
    assert warnings(caplog)[0] == "not used: openvino-bfloat16 cannot be loaded: its unet failed the trial"


def test_an_eager_engine_that_fails_its_trial_does_not_serve(model: Model) -> None:
    def try_out(engine: Any) -> None:
        raise LoadError("its unet failed the trial")

    with pytest.raises(LoadError, match="its unet failed the trial"):
        choice_of(model).make(try_out)


def test_a_broken_artifact_is_rebuilt(model: Model) -> None:
    fits = model.add().manifest.fingerprint
    folder = made(model.store.root / ".new", {"unet/model.xml": b"not what it reads"})
    model.store.place(folder, manifest_of(folder, fingerprint=fits))
    choice = choice_of(model, optimize="openvino")
    choice.make()
    assert (choice.missing, choice.needs_force) == (Target("openvino"), True)


def test_make_built_loads_the_new_artifact(model: Model) -> None:
    choice = choice_of(model, optimize="openvino")
    choice.make()
    assert choice.missing is not None
    with pytest.raises(ArtifactError, match="has no artifact openvino-bfloat16"):
        choice.make_built(choice.missing)
    model.add(precision="bfloat16")
    built = choice.make_built(choice.missing)
    assert (built.name, built.engine.optimized) == ("openvino-bfloat16", True)


def test_an_artifact_of_weights_that_changed_since_the_start_is_refused(model: Model) -> None:
    """The requests in flight, and those before, are the old model's."""
    choice = choice_of(model, optimize="openvino")
    choice.make()
    model.change()
    model.add(precision="bfloat16")
    assert choice.missing is not None
    with pytest.raises(ArtifactError, match="another model"):
        choice.make_built(choice.missing)


def test_an_artifact_is_refused_if_the_weights_changed_after_it_was_placed(model: Model) -> None:
    """Its graphs are the old model's, and the embeddings read beside them would be the new one's."""
    choice = choice_of(model, optimize="openvino")
    choice.make()
    model.add(precision="bfloat16")
    model.change()
    assert choice.missing is not None
    with pytest.raises(ArtifactError, match=r"the weights in .* have changed since the start"):
        choice.make_built(choice.missing)


def test_a_missing_model_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(settings: Settings) -> None:
        raise LoadError("there is no model")

    monkeypatch.setattr(choice_module, "load_components", load)
    with pytest.raises(LoadError):
        EngineChoice(Settings(model_dir=tmp_path)).make()
