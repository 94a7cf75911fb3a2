"""A build, its interruptions and its refusals; what is computed is faked."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.compile.fakes import GRAPHS, HERE, ROUNDS, Doer, Quiet, failing_at, plan_for
from tests.unit.fake_engine import WITHIN
from triton_diffusers.artifacts import Artifact, damage, fingerprint, misfit
from triton_diffusers.compile import builder as builder_module
from triton_diffusers.compile import plan as plan_module
from triton_diffusers.compile.builder import build
from triton_diffusers.compile.errors import BuildError, CannotBegin, Refused
from triton_diffusers.compile.options import LEAST_PSNR, BuildOptions
from triton_diffusers.compile.plan import Plan
from triton_diffusers.compile.tasks import CompileTask, DrawTask
from triton_diffusers.engines.compilers import caches_of

OPTIONS = BuildOptions(model="model", engine="openvino")
FORCED = BuildOptions(model="model", engine="openvino", force=True)
WAITING = BuildOptions(model="model", engine="openvino", wait=True)
FORCED_WAITING = BuildOptions(model="model", engine="openvino", force=True, wait=True)


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    model_is(HERE.fingerprint, monkeypatch)


def model_is(fingerprint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "fingerprint", lambda model_dir, vae: fingerprint)


def built(plan: Plan, doer: Doer, options: BuildOptions = OPTIONS) -> Artifact:
    return build(plan, options, Quiet(), doer)


def test_a_build(tmp_path: Path) -> None:
    plan, doer = plan_for(tmp_path), Doer()
    artifact = built(plan, doer)
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]
    assert plan.store.find("openvino", "bfloat16") == artifact
    assert misfit(artifact, HERE) is None
    assert damage(artifact.folder, artifact.manifest, full=True) is None
    assert (artifact.folder / "unet" / "model.bin").read_bytes() == b"unet bfloat16"
    figures = artifact.manifest.figures
    assert figures.psnr == {"picture": 100.0, "lora": 48.13}
    assert figures.lowest_psnr == 48.13
    assert figures.rounds == ROUNDS
    assert (figures.eager_seconds_per_step, figures.seconds_per_step) == (2.0, 0.5)
    assert figures.speed_up == 4.0, "whatever slowed one turn"
    assert (figures.peak_bytes, figures.eager_peak_bytes, figures.side) == (500, 1000, 64)
    assert doer.caches == caches_of(plan.cache_dir, artifact.folder, artifact.manifest.graphs)
    assert not (plan.store.root / ".work" / plan.name).exists()


def test_calibrated(tmp_path: Path) -> None:
    doer, progress = Doer(), Quiet()
    build(plan_for(tmp_path, precision="int8", calibrated=("unet",)), OPTIONS, progress, doer)
    assert doer.done == ["calibrate", *GRAPHS, "eager", "compiled", "time"]
    assert doer.calibrated == ["unet"]
    assert [line.split("]")[0] for line in progress.said if "…" in line] == [f"[{n}/7" for n in range(1, 8)]


@pytest.mark.parametrize(("calibrated", "again"), [("unet", ["calibrate"]), ("text_encoder", [])])
def test_what_is_gone_on_with_is_calibrated_where_it_still_matters(
    tmp_path: Path, calibrated: str, again: list[str]
) -> None:
    """Drawing for it takes minutes."""
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
def test_an_interrupted_build_goes_on(tmp_path: Path, failure: object, before: list[str], after: list[str]) -> None:
    plan, first = plan_for(tmp_path), Doer(before=failure)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        built(plan, first)
    assert first.done == before
    assert plan.store.all() == {}
    second, progress = Doer(), Quiet()
    build(plan, OPTIONS, progress, second)
    assert second.done == after
    assert (
        f"going on with an earlier build: {', '.join(g for g in GRAPHS if g in before)} done already" in progress.said
    )


def test_eager_pictures_are_drawn_once(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, min_psnr=60.0)
    with pytest.raises(Refused):
        built(plan, Doer())
    again = Doer()
    with pytest.raises(Refused):
        built(plan, again)
    assert again.done == ["compiled"]
    other = Doer()
    with pytest.raises(Refused):
        built(plan, other, BuildOptions(model="model", engine="openvino", steps=3))
    assert other.done == ["eager", "compiled"], "of other steps they are others"


@pytest.mark.parametrize("content", [None, b"", b"another picture"])
def test_eager_pictures_that_are_no_longer_whole_are_drawn_anew(tmp_path: Path, content: bytes | None) -> None:
    """Nobody waits until they are on the disk: after a crash of the machine, some may not be."""
    plan = plan_for(tmp_path, min_psnr=60.0)
    with pytest.raises(Refused):
        built(plan, Doer())
    picture = plan.store.root / ".work" / plan.name / "pictures" / "eager" / "lora-0.png"
    if content is None:
        picture.unlink()
    else:
        picture.write_bytes(content)
    again = Doer()
    with pytest.raises(Refused):
        built(plan, again)
    assert again.done == ["eager", "compiled"]


def test_another_model_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        built(plan_for(tmp_path), Doer(before=failing_at(DrawTask, KeyboardInterrupt())))
    doer = Doer()
    model_is("0" * 64, monkeypatch)
    built(plan_for(tmp_path, here=plan_module.Here(fingerprint="0" * 64, machine="x", versions={})), doer)
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]


def test_weights_that_were_replaced_meanwhile_are_not_placed_as_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(tmp_path)

    def train_on(task: object) -> None:
        model_is("0" * 64, monkeypatch)

    with pytest.raises(BuildError, match=r"openvino-bfloat16 is not placed: the weights in .*/model have changed"):
        built(plan, Doer(before=train_on))
    assert plan.store.all() == {}
    model_is(HERE.fingerprint, monkeypatch)
    built(plan, doer := Doer())
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"], "nobody knows which graphs are of which weights"


def test_a_model_that_was_removed_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "fingerprint", fingerprint)
    with pytest.raises(BuildError, match="have changed since the build began"):
        built(plan_for(tmp_path), Doer())


def test_forced_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        built(plan_for(tmp_path), Doer(before=failing_at(DrawTask, KeyboardInterrupt())))
    doer = Doer()
    built(plan_for(tmp_path), doer, FORCED)
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]


def test_what_draws_something_else_is_refused(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    before = built(plan, Doer())
    said = r"57\.1 dB on average and 14\.2 dB at the least \('lora'\), the limits are 30 and 20 dB .*; look at /"
    with pytest.raises(Refused, match=said):
        built(plan, Doer(tone=150), FORCED)
    assert plan.store.all() == {plan.name: before}, "the one before is still there"
    plan.store.remove(plan.name)
    built(plan, doer := Doer())
    assert doer.done == ["compiled", "time"]


def test_one_picture_may_stay_below_the_average(tmp_path: Path) -> None:
    artifact = built(plan_for(tmp_path), Doer(tone=112))
    assert 20 < artifact.manifest.figures.lowest_psnr < 30


def test_of_int8_a_picture_must_not_stay_far_below_the_average(tmp_path: Path) -> None:
    """At 10 dB, pictures have hardly anything in common."""
    plan = plan_for(tmp_path, precision="int8", calibrated=("unet",), min_psnr=LEAST_PSNR["int8"])
    with pytest.raises(Refused, match=r"10\.1 dB at the least \('lora'\), the limits are 15 and 11 dB"):
        built(plan, Doer(tone=180))
    built(plan, Doer(tone=150))


def test_a_failing_task_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the compiler fell over"):
        built(plan_for(tmp_path), Doer(before=failing_at(CompileTask, BuildError("the compiler fell over"))))


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/somewhere/model.bin")
    plan = plan_for(tmp_path)
    with pytest.raises(
        BuildError, match=r"openvino-bfloat16 is not built: /somewhere/model.bin: No space left on device"
    ):
        built(plan, Doer(before=failing_at(DrawTask, full)))
    built(plan, doer := Doer())
    assert doer.done == ["eager", "compiled", "time"], "it goes on when there is room"


def sparse(path: Path, size: int) -> None:
    """A file that takes no room and says that it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def room_is(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = plan_module.shutil.disk_usage("/")
    monkeypatch.setattr(plan_module.shutil, "disk_usage", lambda path: usage._replace(free=free))


@pytest.mark.parametrize("weights", ["base_model/unet/model.safetensors", "base_model.safetensors"])
def test_too_little_room_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    sparse(tmp_path / "model" / weights, 4_000_000_000)
    if weights.startswith("base_model/"):
        (tmp_path / "model" / "base_model" / "model_index.json").write_text("{}")
    room_is(1_500_000_000, monkeypatch)
    with pytest.raises(BuildError, match=r"has 1\.50 GB of room; .* wants about 2\.00 GB; make room"):
        built(plan_for(tmp_path), Doer())


def test_what_an_interrupted_build_has_made_wants_no_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        built(plan, Doer(before=failing_at(DrawTask, KeyboardInterrupt())))
    sparse(tmp_path / "model" / "base_model.safetensors", 4_000_000_000)
    sparse(plan.store.root / ".work" / plan.name / "vae_decoder.part" / "graph.bin", 600_000_000)
    room_is(1_300_000_000, monkeypatch)
    with pytest.raises(BuildError, match=r"has 1\.30 GB of room; .* wants about 1\.40 GB"):
        built(plan, Doer())
    room_is(1_500_000_000, monkeypatch)
    built(plan, doer := Doer())
    assert doer.done == ["eager", "compiled", "time"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "optimized_model").write_text("a file")
    with pytest.raises(
        CannotBegin, match=r"optimized_model/\.work.* cannot be written \(.*\); name another place with --out"
    ):
        built(plan_for(tmp_path), Doer())


def test_two_at_once(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)

    def second(task: object) -> None:
        with pytest.raises(BuildError, match="another build of openvino-bfloat16 is at work"):
            built(plan, Doer())

    doer = Doer(before=second)
    built(plan, doer)
    assert doer.done == [*GRAPHS, "eager", "compiled", "time"]


def test_what_was_placed_since_the_plan_was_made_is_taken(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    first = built(plan, Doer())
    assert built(plan, doer := Doer()) == first
    assert not doer.done


def built_beside(plan: Plan, options: BuildOptions, end: Callable[[], None]) -> tuple[Future[Artifact], Doer]:
    """A build that waits for another one, which calls ``end`` before it draws; both have ended."""
    second, doer, progress = [], Doer(), Quiet()

    def begin(task: object) -> None:
        if isinstance(task, DrawTask) and not second:
            second.append(pool.submit(build, plan, options, progress, doer))
            deadline = time.monotonic() + WITHIN
            while not any("waiting: another build of openvino-bfloat16 is at work" in line for line in progress.said):
                assert time.monotonic() < deadline, "it does not wait"
                time.sleep(0.005)
            end()

    with ThreadPoolExecutor() as pool, suppress(BuildError):
        built(plan, Doer(before=begin), options)
    return second[0], doer


def fail() -> None:
    raise BuildError("the eager engine fell over")


def test_what_was_waited_for_is_taken(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    second, doer = built_beside(plan, WAITING, lambda: None)
    assert second.result() == plan.store.find("openvino", "bfloat16")
    assert not doer.done
    assert [path.name for path in (plan.store.root / ".work").iterdir()] == ["openvino-bfloat16.lock"]


def test_what_was_waited_for_in_vain_is_built(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    second, doer = built_beside(plan, WAITING, fail)
    assert second.result() == plan.store.find("openvino", "bfloat16")
    assert doer.done == ["eager", "compiled", "time"], "it goes on with what the other one has finished"


def test_forced_takes_what_was_built_while_it_waited_and_nothing_older(tmp_path: Path) -> None:
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


def test_weights_that_were_replaced_while_it_waited_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, doer = built_beside(plan_for(tmp_path), WAITING, lambda: model_is("0" * 64, monkeypatch))
    with pytest.raises(BuildError, match="have changed since the build began"):
        second.result()
    assert not doer.done
