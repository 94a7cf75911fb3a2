"""Builds with faked computation: success, interruption and rejection."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.compile.fakes import ENVIRONMENT, GRAPHS, ROUNDS, Doer, Quiet, failing_at, plan_for
from tests.waiting import until
from triton_diffusers.artifacts import Artifact, damage, fingerprint, misfit
from triton_diffusers.compile import builder as builder_module
from triton_diffusers.compile import plan as plan_module
from triton_diffusers.compile.builder import build
from triton_diffusers.compile.errors import BuildError, CannotBegin, QualityTooLow
from triton_diffusers.compile.options import MIN_PSNR, BuildOptions
from triton_diffusers.compile.plan import Plan
from triton_diffusers.compile.tasks import CompileTask, DrawTask
from triton_diffusers.engines.compilers import caches_of

OPTIONS = BuildOptions(model="model", engine="openvino")
FORCED = BuildOptions(model="model", engine="openvino", force=True)
WAITING = BuildOptions(model="model", engine="openvino", wait=True)
FORCED_WAITING = BuildOptions(model="model", engine="openvino", force=True, wait=True)


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    model_is(ENVIRONMENT.fingerprint, monkeypatch)


def model_is(fingerprint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "fingerprint", lambda model_dir, vae: fingerprint)


def built(plan: Plan, doer: Doer, options: BuildOptions = OPTIONS) -> Artifact:
    return build(plan, options, Quiet(), doer)


def test_a_build_verifies_and_places_its_artifact(tmp_path: Path) -> None:
    plan, doer = plan_for(tmp_path), Doer()
    artifact = built(plan, doer)
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]
    assert plan.store.find("openvino", "bfloat16") == artifact
    assert misfit(artifact, ENVIRONMENT) is None
    assert damage(artifact.folder, artifact.manifest, full=True) is None
    assert (artifact.folder / "unet" / "model.bin").read_bytes() == b"unet bfloat16"
    figures = artifact.manifest.figures
    assert figures.psnr == {"plain": 100.0, "lora": 48.13}
    assert figures.lowest_psnr == 48.13
    assert figures.rounds == ROUNDS
    assert (figures.eager_seconds_per_step, figures.seconds_per_step) == (2.0, 0.5)
    assert figures.speed_up == 4.0, "disturbed turns do not count"
    assert (figures.peak_bytes, figures.eager_peak_bytes, figures.side) == (500, 1000, 64)
    assert doer.caches == caches_of(plan.cache_dir, artifact.folder, artifact.manifest.graphs)
    assert not (plan.store.root / ".work" / plan.name).exists()


def test_int8_is_calibrated_first(tmp_path: Path) -> None:
    doer, progress = Doer(), Quiet()
    build(plan_for(tmp_path, precision="int8", calibrated=("unet",)), OPTIONS, progress, doer)
    assert doer.done == ["calibrate", *GRAPHS, "eager", "compiled", "time"]
    assert doer.calibrated == ["unet"]
    assert [line.split("]")[0] for line in progress.said if "…" in line] == [f"[{n}/7" for n in range(1, 8)]


@pytest.mark.parametrize(("calibrated", "again"), [("unet", ["calibrate"]), ("text_encoder", [])])
def test_a_resumed_build_is_calibrated_only_if_a_graph_needs_it(
    tmp_path: Path, calibrated: str, again: list[str]
) -> None:
    """Calibration images take minutes."""
    plan = plan_for(tmp_path, precision="int8", calibrated=(calibrated,))
    with pytest.raises(KeyboardInterrupt):
        built(plan, Doer(before=failing_at(CompileTask, KeyboardInterrupt())))
    built(plan, doer := Doer())
    assert doer.done == [*again, "unet", "eager", "compiled", "time"]


@pytest.mark.parametrize(
    ("failure", "before", "after"),
    [
        (failing_at(CompileTask, KeyboardInterrupt()), ["text_encoder"], ["unet", "eager", "compiled", "time"]),
        (failing_at(DrawTask, KeyboardInterrupt()), [*GRAPHS], ["eager", "compiled", "time"]),
    ],
)
def test_an_interrupted_build_resumes(tmp_path: Path, failure: object, before: list[str], after: list[str]) -> None:
    plan, first = plan_for(tmp_path), Doer(before=failure)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        built(plan, first)
    assert first.done == before
    assert plan.store.all() == {}
    second, progress = Doer(), Quiet()
    build(plan, OPTIONS, progress, second)
    assert second.done == after
    assert f"resuming an earlier build: {', '.join(g for g in GRAPHS if g in before)} already done" in progress.said


def test_eager_images_are_generated_once(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, min_psnr=60.0)
    with pytest.raises(QualityTooLow):
        built(plan, Doer())
    again = Doer()
    with pytest.raises(QualityTooLow):
        built(plan, again)
    assert again.done == ["compiled"]
    other = Doer()
    with pytest.raises(QualityTooLow):
        built(plan, other, BuildOptions(model="model", engine="openvino", steps=3))
    assert other.done == ["eager", "compiled"], "another number of steps gives other images"


@pytest.mark.parametrize("content", [None, b"", b"another image"])
def test_damaged_eager_images_are_generated_again(tmp_path: Path, content: bytes | None) -> None:
    """They are not synced to the disk, so some may be lost in a crash of the machine."""
    plan = plan_for(tmp_path, min_psnr=60.0)
    with pytest.raises(QualityTooLow):
        built(plan, Doer())
    image = plan.store.root / ".work" / plan.name / "images" / "eager" / "lora-0.png"
    if content is None:
        image.unlink()
    else:
        image.write_bytes(content)
    again = Doer()
    with pytest.raises(QualityTooLow):
        built(plan, again)
    assert again.done == ["eager", "compiled"]


def test_a_build_of_another_model_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        built(plan_for(tmp_path), Doer(before=failing_at(DrawTask, KeyboardInterrupt())))
    doer = Doer()
    model_is("0" * 64, monkeypatch)
    built(
        plan_for(tmp_path, environment=plan_module.BuildEnvironment(fingerprint="0" * 64, machine="x", versions={})),
        doer,
    )
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]


def test_weights_replaced_during_a_build_fail_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for(tmp_path)

    def train_on(task: object) -> None:
        model_is("0" * 64, monkeypatch)

    with pytest.raises(BuildError, match=r"openvino-bfloat16 was not built: the weights in .*/model have changed"):
        built(plan, Doer(before=train_on))
    assert plan.store.all() == {}
    model_is(ENVIRONMENT.fingerprint, monkeypatch)
    built(plan, doer := Doer())
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"], "any graph may be of the other weights"


def test_a_model_removed_during_a_build_fails_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "fingerprint", fingerprint)
    with pytest.raises(BuildError, match="have changed since the start of the build"):
        built(plan_for(tmp_path), Doer())


def test_a_forced_build_starts_over(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        built(plan_for(tmp_path), Doer(before=failing_at(DrawTask, KeyboardInterrupt())))
    doer = Doer()
    built(plan_for(tmp_path), doer, FORCED)
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]


def test_images_unlike_the_eager_ones_are_rejected(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    before = built(plan, Doer())
    said = (
        r"57\.1 dB on average and 14\.2 dB at worst \('lora'\), the limits are 30 and 20 dB .*; compare the images in /"
    )
    with pytest.raises(QualityTooLow, match=said):
        built(plan, Doer(tone=150), FORCED)
    assert plan.store.all() == {plan.name: before}, "the older artifact stays"
    plan.store.remove(plan.name)
    built(plan, doer := Doer())
    assert doer.done == ["compiled", "time"]


def test_one_image_may_be_below_the_minimum_mean(tmp_path: Path) -> None:
    artifact = built(plan_for(tmp_path), Doer(tone=112))
    assert 20 < artifact.manifest.figures.lowest_psnr < 30


def test_an_int8_image_must_not_be_far_below_the_mean(tmp_path: Path) -> None:
    """At 10 dB, images have hardly anything in common."""
    plan = plan_for(tmp_path, precision="int8", calibrated=("unet",), min_psnr=MIN_PSNR["int8"])
    with pytest.raises(QualityTooLow, match=r"10\.1 dB at worst \('lora'\), the limits are 15 and 11 dB"):
        built(plan, Doer(tone=180))
    built(plan, Doer(tone=150))


def test_a_failed_task_fails_the_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the compiler fell over"):
        built(plan_for(tmp_path), Doer(before=failing_at(CompileTask, BuildError("the compiler fell over"))))


def test_a_full_disk_fails_the_build_until_there_is_room(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/somewhere/model.bin")
    plan = plan_for(tmp_path)
    with pytest.raises(
        BuildError, match=r"openvino-bfloat16 was not built: /somewhere/model.bin: No space left on device"
    ):
        built(plan, Doer(before=failing_at(DrawTask, full)))
    built(plan, doer := Doer())
    assert doer.done == ["eager", "compiled", "time"], "it resumes"


def sparse(path: Path, size: int) -> None:
    """Create a file of ``size`` bytes that occupies no disk space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def room_is(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = plan_module.shutil.disk_usage("/")
    monkeypatch.setattr(plan_module.shutil, "disk_usage", lambda path: usage._replace(free=free))


@pytest.mark.parametrize("weights", ["base_model/unet/model.safetensors", "base_model.safetensors"])
def test_too_little_disk_space_is_an_early_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    sparse(tmp_path / "model" / weights, 4_000_000_000)
    if weights.startswith("base_model/"):
        (tmp_path / "model" / "base_model" / "model_index.json").write_text("{}")
    room_is(1_500_000_000, monkeypatch)
    with pytest.raises(BuildError, match=r"not enough disk space: 1\.50 GB free, .* about 2\.00 GB; free some space"):
        built(plan_for(tmp_path), Doer())


def test_finished_parts_of_an_interrupted_build_count_as_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        built(plan, Doer(before=failing_at(DrawTask, KeyboardInterrupt())))
    sparse(tmp_path / "model" / "base_model.safetensors", 4_000_000_000)
    sparse(plan.store.root / ".work" / plan.name / "vae_decoder.part" / "graph.bin", 600_000_000)
    room_is(1_300_000_000, monkeypatch)
    with pytest.raises(BuildError, match=r"not enough disk space: 1\.30 GB free, .* about 1\.40 GB"):
        built(plan, Doer())
    room_is(1_500_000_000, monkeypatch)
    built(plan, doer := Doer())
    assert doer.done == ["eager", "compiled", "time"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "optimized_model").write_text("a file")
    with pytest.raises(
        CannotBegin, match=r"optimized_model/\.work.* cannot be written \(.*\); choose another place with --out"
    ):
        built(plan_for(tmp_path), Doer())


def test_a_concurrent_build_of_one_artifact_is_an_error(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)

    def second(task: object) -> None:
        with pytest.raises(BuildError, match="another build of openvino-bfloat16 is running"):
            built(plan, Doer())

    doer = Doer(before=second)
    built(plan, doer)
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]


def test_an_artifact_placed_since_the_plan_was_made_is_used(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    first = built(plan, Doer())
    assert built(plan, doer := Doer()) == first
    assert not doer.done


def built_beside(plan: Plan, options: BuildOptions, end: Callable[[], None]) -> tuple[Future[Artifact], Doer]:
    """Run a build that waits for another one, which calls ``end`` before its first images; both have ended."""
    second, doer, progress = [], Doer(), Quiet()

    def begin(task: object) -> None:
        if isinstance(task, DrawTask) and not second:
            second.append(pool.submit(build, plan, options, progress, doer))
            said = "waiting: another build of openvino-bfloat16 is running"
            until(lambda: any(said in line for line in progress.said), "the second build waits")
            end()

    with ThreadPoolExecutor() as pool, suppress(BuildError):
        built(plan, Doer(before=begin), options)
    return second[0], doer


def fail() -> None:
    raise BuildError("the eager engine fell over")


def test_a_waiting_build_uses_the_others_artifact(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    second, doer = built_beside(plan, WAITING, lambda: None)
    assert second.result() == plan.store.find("openvino", "bfloat16")
    assert not doer.done
    assert [path.name for path in (plan.store.root / ".work").iterdir()] == ["openvino-bfloat16.lock"]


def test_a_waiting_build_resumes_one_that_failed(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    second, doer = built_beside(plan, WAITING, fail)
    assert second.result() == plan.store.find("openvino", "bfloat16")
    assert doer.done == ["eager", "compiled", "time"], "it resumes from the other one's finished parts"


def test_a_forced_waiting_build_uses_only_a_new_artifact(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    older = built(plan, Doer(tone=102))
    second, doer = built_beside(plan, FORCED_WAITING, fail)
    newer = second.result()
    assert newer != older
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]
    built(plan, Doer(tone=102), FORCED)
    second, doer = built_beside(plan, FORCED_WAITING, lambda: None)
    assert second.result() == plan.store.find("openvino", "bfloat16")
    assert not doer.done


def test_weights_replaced_while_a_build_waited_fail_it_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second, doer = built_beside(plan_for(tmp_path), WAITING, lambda: model_is("0" * 64, monkeypatch))
    with pytest.raises(BuildError, match="have changed since the start of the build"):
        second.result()
    assert not doer.done
