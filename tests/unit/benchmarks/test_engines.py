"""The benchmark of engines: turns, settings, what is left out, and what is made of the figures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import engines, engines_workshop
from benchmarks.engines_contenders import ARTIFACTS, CONTENDERS, Artifact, Contender, Setting
from benchmarks.engines_report import note, psnr, table
from benchmarks.engines_workshop import NotPrepared, Workshop
from benchmarks.plots import plot_engines
from benchmarks.program import ProgramFailed
from benchmarks.random_model import LORA, TINY, make_model
from benchmarks.report import Progress
from benchmarks.tables import fill
from tests.lora_files import is_attention
from tests.unit.conftest import request_for
from triton_diffusers.adapters.lora import LoraLoader
from triton_diffusers.api.request import LoraChoice
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.base import CheckpointEngine
from triton_diffusers.settings import Settings


class FakeWorkshop(Workshop):
    """Runs nothing; knows how fast everybody is."""

    def __init__(self, folder: Path, seconds: Callable[[Contender, Mapping[str, Any]], float]) -> None:
        super().__init__(folder, TINY, 64, Progress())
        self._seconds = seconds
        self.ran: list[list[str]] = []

    def make_model(self) -> None:
        """Not needed."""

    def prepare(self, contender: Contender) -> list[Setting]:
        """Everything is there."""
        return list(contender.settings)

    def run(self, turns: Sequence[tuple[Contender, Sequence[str]]], seconds: float) -> list[ProgramFailed | None]:
        """Answer as the contenders' processes would."""
        self.ran.append([contender.label for contender, _ in turns])
        return [self._drawn(contender, *map(Path, arguments)) for contender, arguments in turns]

    def _drawn(self, contender: Contender, asked: Path, answer: Path) -> ProgramFailed | None:
        turn = json.loads(asked.read_text())
        try:
            step = self._seconds(contender, turn["options"])
        except ProgramFailed as error:
            return error
        shade = np.random.default_rng(1).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(shade).save(turn["picture"])
        measured = {
            "ready": 5.0,
            "warm_up": step,
            "image": step * turn["steps"] + 1.0,
            "steps": [step] * (turn["steps"] - 1),
            "after": 0.5,
            "peak": 3 * 2**30,
            "peak_drawing": 2 * 2**30,
            "mapped": 2**30,
            "packages": {},
        }
        answer.write_text(json.dumps(measured))
        return None


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_PAUSE", 0.0)


def measured(
    folder: Path, names: Sequence[str], seconds: Callable[[Contender, Mapping[str, Any]], float]
) -> tuple[dict[str, Any], FakeWorkshop]:
    plan = engines.Plan(shape="tiny", side=64, steps=5, rounds=2, limit=1.0)
    workshop = FakeWorkshop(folder, seconds)
    bench = engines.Bench(plan, workshop, folder, Progress())
    bench.prepare(names)
    machine = {
        "cpu": "a processor",
        "cores": 2,
        "torch_threads": 2,
        "packages": {"torch": "2", "diffusers": "0"},
        "python": "3",
        "commit": "abc",
        "date": "today",
        "load_average_before": 0.0,
    }
    return {"machine": machine, **bench.run()}, workshop


def test_contenders_take_turns_and_are_compared_with_the_default(tmp_path: Path) -> None:
    def seconds(contender: Contender, options: Mapping[str, Any]) -> float:
        return 1.0 if contender is CONTENDERS["diffusers"] else 0.25

    figures, workshop = measured(tmp_path, ["diffusers", "eager"], seconds)
    first, second = CONTENDERS["diffusers"].label, CONTENDERS["eager"].label
    assert workshop.ran == [[first, second]] * 2
    eager = figures["contenders"]["eager"]
    assert eager["step_seconds"]["median"] == 0.25
    assert eager["image_seconds"]["median"] == 2.25
    assert eager["beside_steps"] == pytest.approx(1.0 / 2.25)
    assert eager["ratios"]["step_seconds_diffusers"] == 4.0
    assert eager["ratios"]["peak_bytes_diffusers"] == 1.0
    assert eager["psnr_db"] == 100.0
    assert "4.00×" in table(figures)
    assert "a processor" in note(figures)


def test_a_machine_that_slows_down_does_so_for_both(tmp_path: Path) -> None:
    speed = {"now": 1.0}

    def seconds(contender: Contender, options: Mapping[str, Any]) -> float:
        if contender is CONTENDERS["diffusers"]:
            speed["now"] *= 2.0  # with each heat
            return speed["now"]
        return speed["now"] / (4.0 if contender is CONTENDERS["eager"] else 5.0)

    figures, workshop = measured(tmp_path, ["diffusers", "eager", "ours-openvino", "ours-openvino-lora"], seconds)
    assert [heat[0] for heat in workshop.ran[:3]] == [CONTENDERS["diffusers"].label] * 2 + [
        CONTENDERS["ours-openvino"].label
    ]
    ours, lora = (figures["contenders"][name] for name in ("ours-openvino", "ours-openvino-lora"))
    assert ours["ratios"]["step_seconds_diffusers"] == pytest.approx(5.0)
    assert ours["ratios"]["step_seconds_eager"] == pytest.approx(1.25)
    assert lora["ratios"]["step_seconds_ours-openvino"] == pytest.approx(1.0)
    assert lora["ratios"]["step_seconds_diffusers"] == pytest.approx(5.0)
    assert "5.00×" in table(figures)


def test_a_contender_without_a_baseline_runs_alone(tmp_path: Path) -> None:
    figures, workshop = measured(tmp_path, ["ours-eager"], lambda contender, options: 0.5)
    assert [len(heat) for heat in workshop.ran] == [1, 1]
    assert figures["contenders"]["ours-eager"]["ratios"] == {}


def test_uneven_steps_are_averaged_over_the_picture(tmp_path: Path) -> None:
    figures, _ = measured(tmp_path, ["diffusers", "ours-openvino-cached"], lambda contender, options: 0.5)
    cached = figures["contenders"]["ours-openvino-cached"]
    # Five steps of half a second and a second beside them, half of which is after the last step.
    assert cached["step_seconds"]["values"] == [pytest.approx(3.0 / 5)] * 2
    assert cached["setting"]["profile"] == "cached"
    assert figures["contenders"]["diffusers"]["step_seconds"]["values"] == [0.5] * 8
    assert cached["ratios"]["step_seconds_diffusers"] == pytest.approx(0.5 / 0.6)


def test_the_fastest_setting_is_found_and_kept(tmp_path: Path) -> None:
    def seconds(contender: Contender, options: Mapping[str, Any]) -> float:
        return 0.5 if options["static"] else 0.2

    figures, workshop = measured(tmp_path, ["genai"], seconds)
    assert [len(heat) for heat in workshop.ran] == [2, 1, 1]
    assert figures["contenders"]["genai"]["setting"]["static"] is False
    assert figures["contenders"]["genai"]["step_seconds"]["median"] == 0.2


def test_a_setting_that_fails_is_not_the_end_of_a_contender(tmp_path: Path) -> None:
    def seconds(contender: Contender, options: Mapping[str, Any]) -> float:
        if options["static"]:
            raise ProgramFailed("static shapes are not supported")
        return 0.2

    figures, _ = measured(tmp_path, ["genai"], seconds)
    assert figures["missing"] == {}
    assert figures["contenders"]["genai"]["setting"]["static"] is False


def test_a_failing_contender_is_left_out_with_the_reason(tmp_path: Path) -> None:
    def seconds(contender: Contender, options: Mapping[str, Any]) -> float:
        if contender is CONTENDERS["eager"]:
            raise ProgramFailed("ended with -9: ")
        return 1.0

    figures, workshop = measured(tmp_path, ["diffusers", "eager"], seconds)
    assert list(figures["contenders"]) == ["diffusers"]
    assert figures["missing"] == {"eager": "ended with -9: "}
    assert [len(heat) for heat in workshop.ran] == [2, 1]
    assert f"Not measured: {CONTENDERS['eager'].label}: ended with -9" in note(figures)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    figures, _ = measured(tmp_path, ["diffusers", "ours-eager"], lambda contender, options: 1.0)
    plot_engines(tmp_path / "engines.png", figures["contenders"])
    with Image.open(tmp_path / "engines.png") as drawn:
        assert drawn.width > 1000


def test_the_document_has_a_place_for_the_table() -> None:
    document = (Path(engines.__file__).parents[1] / "docs" / "benchmarks.md").read_text()
    assert "the table" in fill(document, "engines", "the table")


def test_a_blank_image_is_an_error(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Image.new("RGB", (8, 8), "grey").save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="one has drawn a blank picture"):
        psnr(tmp_path / "one.png", tmp_path / "two.png")


def test_every_artifact_that_is_named_can_be_made() -> None:
    for contender in CONTENDERS.values():
        for setting in contender.settings:
            assert not setting.artifact or setting.artifact in ARTIFACTS
    for artifact in ARTIFACTS.values():
        assert set(artifact.needs) <= set(ARTIFACTS)


class TestWorkshop:
    """Programs that are run, and things that are made once."""

    @pytest.fixture
    def workshop(self, tmp_path: Path) -> Workshop:
        (tmp_path / "tiny").mkdir()
        return Workshop(tmp_path, TINY, 64, Progress())

    def contender(self, *settings: Setting) -> Contender:
        return Contender(label="", module="json.tool", settings=settings, precision="")

    def test_a_contender_that_fails_is_quoted(self, workshop: Workshop, tmp_path: Path) -> None:
        (tmp_path / "in").write_text("{")
        (failure,) = workshop.run([(self.contender(), [str(tmp_path / "in")])], 60.0)
        assert re.match(r"ended with 1: .*Expecting", str(failure), re.DOTALL)

    def test_an_artifact_is_made_once_and_whole(
        self, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = ("-c", "import sys, os; os.mkdir(sys.argv[1])", "{folder}")
        failing = ("-c", "import sys, os; os.mkdir(sys.argv[1]); sys.exit('no memory')", "{folder}")
        artifacts = {
            "good": Artifact(command=command),
            "bad": Artifact(command=failing, needs=("good",)),
        }
        monkeypatch.setattr(engines_workshop, "ARTIFACTS", artifacts)
        settings = [Setting(artifact="good"), Setting(artifact="bad")]
        assert workshop.prepare(self.contender(*settings)) == settings[:1]
        assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["good"]
        with pytest.raises(NotPrepared, match="bad could not be made: ended with 1: no memory"):
            workshop.prepare(self.contender(settings[1]))


def test_the_random_model_loads_as_a_checkpoint_and_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "shape" / "model"
    make_model(folder, TINY)
    components = load_components(Settings(model_dir=folder))
    assert components.family.latents.pixels == 8
    assert components.safety_checker is None
    assert len(components.tokenizer("a red apple").input_ids) == 5
    made = (folder / "base_model" / "model_index.json").stat().st_mtime_ns
    make_model(folder, TINY)
    assert (folder / "base_model" / "model_index.json").stat().st_mtime_ns == made


def test_missing_parts_of_the_random_model_are_added(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, TINY, 64, Progress())
    make_model(workshop.model, TINY)
    shutil.rmtree(workshop.model / "lora")
    workshop.make_model()
    settings = Settings(model_dir=workshop.model)
    targets = CheckpointEngine(load_components(settings)).lora_targets
    read = LoraLoader(settings, targets).load(request_for(loras=(LoraChoice(LORA, 1.0),)))
    assert read is not None
    assert set(read.layers) == {path for path in targets if is_attention(path) and path.startswith("unet.")}
    assert {layer.down.shape[0] for layer in read.layers.values()} == {16}
