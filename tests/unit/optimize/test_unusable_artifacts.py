"""Artifacts that cannot be used: logged with the reason, replaced by the next best, rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.artifacts.samples import made, manifest_of
from tests.unit.optimize.fakes import Model, choice_of, warnings
from triton_diffusers.artifacts import Artifact, ArtifactError
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.optimize.policy import Target

pytestmark = pytest.mark.usefixtures("fakes")


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
