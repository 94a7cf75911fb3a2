"""The launcher's reading of config.pbtxt files, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.conftest import ROOT
from triton_diffusers.launcher.errors import BadRepository
from triton_diffusers.launcher.options import LEFT_OUT
from triton_diffusers.launcher.repository import Repository


def write(root: Path, name: str, config: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(config, encoding="utf-8")


def ensemble(*steps: str) -> str:
    listed = ", ".join(f'{{ model_name: "{step}" model_version: -1 }}' for step in steps)
    return f'platform: "ensemble" ensemble_scheduling {{ step [ {listed} ] }}'


def probed(probe: str) -> str:
    escaped = probe.replace('"', '\\"')
    return f'backend: "python" parameters {{ key: "probe" value {{ string_value: "{escaped}" }} }}'


def test_models_their_probes_and_inputs(tmp_path: Path) -> None:
    write(tmp_path, "painter", probed('{"prompt": "probe", "steps": 1}') + 'input [ { name: "prompt" }, '
          '{ name: "seed" optional: true } ]')  # fmt: skip
    write(tmp_path, "quiet", 'name: "quiet" backend: "python"')
    (tmp_path / "not a model").mkdir()
    repository = Repository.read(tmp_path)
    assert list(repository.models) == ["painter", "quiet"]
    painter = repository.models["painter"]
    assert (painter.probe, painter.required) == ({"prompt": "probe", "steps": 1}, ("prompt",))
    assert painter.steps == frozenset()
    assert repository.watched == (painter,)


def test_dependents_are_found_through_other_ensembles(tmp_path: Path) -> None:
    write(tmp_path, "base", 'backend: "python"')
    write(tmp_path, "translator", 'backend: "python"')
    write(tmp_path, "inner", ensemble("translator", "base"))
    write(tmp_path, "outer", ensemble("inner"))
    repository = Repository.read(tmp_path)
    assert repository.dependents("base") == ("inner", "outer")
    assert repository.dependents("translator") == ("inner", "outer")
    assert repository.dependents("inner") == ("outer",)
    assert repository.dependents("outer") == ()
    assert [model.name for model in repository.entrances] == ["outer"]
    assert repository.models["outer"].steps == {"inner"}


def test_without_some_models_their_ensembles_go_too(tmp_path: Path) -> None:
    for name in ("base", "control", "translator"):
        write(tmp_path, name, 'backend: "python"')
    write(tmp_path, "ensemble", ensemble("translator", "base"))
    write(tmp_path, "ensemble_control", ensemble("translator", "control"))
    repository = Repository.read(tmp_path)
    left = repository.without({"control", "of another repository"})
    assert list(left.models) == ["base", "ensemble", "translator"]
    assert left.root == repository.root
    assert left.dependents("translator") == ("ensemble",)
    with pytest.raises(BadRepository, match="has nothing but base, control"):
        repository.without({"base", "control", "translator"})


@pytest.mark.parametrize(
    ("func_name", "models"),
    [
        ("base", ["ensemble", "jobs", "sd_base", "translator"]),
        ("controlnet", ["ensemble_controlnet", "jobs", "sd_controlnet", "translator"]),
        ("all", ["ensemble", "ensemble_controlnet", "jobs", "sd_base", "sd_controlnet", "translator"]),
    ],
)
def test_what_each_func_name_leaves_of_our_own_repository(func_name: str, models: list[str]) -> None:
    left = Repository.read(ROOT / "model_repository").without(LEFT_OUT[func_name])
    assert list(left.models) == models
    assert [model.name for model in left.watched] == [name for name in models if not name.startswith("ensemble")]


def test_models_of_our_own_repository_that_need_an_engine_share_it() -> None:
    models = Repository.read(ROOT / "model_repository").models
    needing = {name: model.settings for name, model in models.items() if model.needs_engine}
    assert needing == {"sd_base": {}, "sd_controlnet": {}}


def test_settings_are_the_parameters_that_are_nothing_else(tmp_path: Path) -> None:
    values = {"max_steps": "30", "engine_process": "shared", "probe": "{}", "FORCE_CPU_ONLY_INPUT_TENSORS": "no"}
    write(tmp_path, "painter", "".join(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }} '
                                       for key, value in values.items()))  # fmt: skip
    painter = Repository.read(tmp_path).models["painter"]
    assert (painter.needs_engine, painter.settings) == (True, {"max_steps": "30"})


def test_probe_need_not_have_inputs(tmp_path: Path) -> None:
    write(tmp_path, "jobs", probed("{}"))
    assert [model.name for model in Repository.read(tmp_path).watched] == ["jobs"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BadRepository, match=r"there is no model repository at .*nowhere; .*--model-repository"):
        Repository.read(tmp_path / "nowhere")
    with pytest.raises(BadRepository, match="is empty"):
        Repository.read(tmp_path)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("backend: python", "painter/config.pbtxt cannot be read: 1:10"),
        ("no_such_field: 1", "painter/config.pbtxt cannot be read: .*no_such_field"),
        ('name: "other"', "names its model other; it must be the folder's name, painter"),
        (probed("{"), "painter/config.pbtxt: the parameter 'probe' is not JSON"),
        (probed("[1]"), "painter/config.pbtxt: the parameter 'probe' must be a JSON object"),
        (ensemble("ghost"), "painter calls ghost, which is not in the repository"),
    ],
)
def test_unusable_configuration_is_named_in_one_line(tmp_path: Path, config: str, complaint: str) -> None:
    write(tmp_path, "painter", config)
    with pytest.raises(BadRepository, match=complaint) as caught:
        Repository.read(tmp_path)
    assert "\n" not in str(caught.value)
