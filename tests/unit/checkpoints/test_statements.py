"""Statements of files about sampling: their precedence, and warnings about contradictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from tests.unit.checkpoints.original import Tensors, original, text_encoder, unet, vae
from triton_diffusers.checkpoints.convert import convert
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.sampling.schedulers import SchedulerFactory

MARK = torch.zeros(0)
V_PREDICTION = {"prediction_type": "v_prediction"}
ZERO_SNR = {**V_PREDICTION, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
NO_SIGNAL = torch.tensor([0.99, 0.5, 0.0])


@pytest.fixture(scope="module")
def first() -> Tensors:
    """Return a small model shaped like Stable Diffusion 1.5."""
    return original(unet(), vae(), text_encoder())


@pytest.fixture(scope="module")
def second() -> Tensors:
    """Return a small model shaped like Stable Diffusion 2.1."""
    return original(unet(second=True), vae(), text_encoder(act="gelu"), open_clip=True)


def write(
    folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None, beside: dict[str, Any] | None = None
) -> Path:
    """Write ``m.safetensors`` and files ``beside`` it, by suffix."""
    for suffix, content in (beside or {}).items():
        path = folder / f"m{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, folder / "m.safetensors", metadata)
    return folder / "m.safetensors"


def made(source: Path, component: str = "scheduler") -> dict[str, Any]:
    """Return a component's config after conversion."""
    folder = source.parent / "made"
    if not folder.exists():
        folder.mkdir()
        convert(source, folder)
    name = "scheduler_config.json" if component == "scheduler" else "config.json"
    content: dict[str, Any] = json.loads((folder / component / name).read_text())
    return content


_OPERATORS = ".config/scheduler/scheduler_config.json"
_V_YAML = 'model: {params: {parameterization: "v"}}'


@pytest.mark.parametrize(
    ("marks", "metadata", "beside", "expected"),
    [
        pytest.param({}, {}, {}, {"prediction_type": "epsilon"}, id="nothing"),
        pytest.param({"v_pred": MARK}, {}, {}, V_PREDICTION, id="v_pred"),
        pytest.param({"v_pred": MARK, "ztsnr": MARK}, {}, {}, ZERO_SNR, id="v_pred and ztsnr"),
        pytest.param({"v_pred": MARK, "alphas_cumprod": NO_SIGNAL}, {}, {}, ZERO_SNR, id="alphas_cumprod"),
        pytest.param({}, {"modelspec.prediction_type": "v"}, {}, V_PREDICTION, id="modelspec"),
        pytest.param({}, {"ss_v_parameterization": "True"}, {}, V_PREDICTION, id="ss_v_parameterization"),
        pytest.param({"v_pred": MARK}, {"ss_zero_terminal_snr": "True"}, {}, ZERO_SNR, id="ss_zero_terminal_snr"),
        pytest.param({}, {}, {".yaml": _V_YAML}, V_PREDICTION, id="yaml"),
        pytest.param({}, {}, {".yml": _V_YAML}, V_PREDICTION, id="yml"),
        pytest.param({}, {}, {".json": {"prediction_type": "v_prediction"}}, V_PREDICTION, id="json"),
        pytest.param({}, {}, {".json": {"parameterization": "v", "other": 1}}, V_PREDICTION, id="json of others"),
        pytest.param({}, {}, {_OPERATORS: ZERO_SNR}, ZERO_SNR, id="scheduler config"),
        pytest.param(
            {"ztsnr": MARK},
            {},
            {_OPERATORS: {**V_PREDICTION, "timestep_spacing": "leading"}},
            {**ZERO_SNR, "timestep_spacing": "leading"},
            id="spacing of the operator",
        ),
        pytest.param({"v_pred": MARK}, {}, {".yaml": "model: {params: {}}"}, V_PREDICTION, id="implicit epsilon"),
        pytest.param({"v_pred": MARK}, {"modelspec.prediction_type": "epsilon"}, {}, V_PREDICTION, id="marks first"),
        pytest.param(
            {"v_pred": MARK}, {}, {_OPERATORS: {"prediction_type": "epsilon"}}, {"prediction_type": "epsilon"},
            id="the operator first",
        ),
        pytest.param(
            {}, {}, {".yaml": "model: {params: {linear_start: 0.001, linear_end: 0.02, timesteps: 500}}"},
            {"beta_start": 0.001, "beta_end": 0.02, "num_train_timesteps": 500, "prediction_type": "epsilon"},
            id="noise schedule",
        ),
    ],
)  # fmt: skip
def test_statements_become_the_scheduler_config(
    tmp_path: Path,
    first: Tensors,
    marks: Tensors,
    metadata: dict[str, str],
    beside: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    config = made(write(tmp_path, {**first, **marks}, metadata, beside))
    assert {key: config.get(key) for key in expected} == expected
    assert ("rescale_betas_zero_snr" in config) == ("rescale_betas_zero_snr" in expected)


@pytest.mark.parametrize(
    ("metadata", "prediction", "side"),
    [
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction", 96),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon", 64),
        ({"ss_base_model_version": "sd_v2_v"}, "v_prediction", 96),
        ({"modelspec.prediction_type": "v", "modelspec.resolution": "512x512"}, "v_prediction", 64),
    ],
)
def test_metadata_tells_the_second_generation_apart(
    tmp_path: Path, second: Tensors, metadata: dict[str, str], prediction: str, side: int
) -> None:
    source = write(tmp_path, second, metadata)
    assert made(source)["prediction_type"] == prediction
    assert made(source, "unet")["sample_size"] == side


def test_resolution_and_scale_factor_and_heads(tmp_path: Path, first: Tensors) -> None:
    yaml = "model: {params: {scale_factor: 0.13, unet_config: {params: {num_head_channels: 16, context_dim: 64}}}}"
    source = write(tmp_path, first, {"modelspec.resolution": "768x768"}, {".yaml": yaml})
    assert made(source, "unet")["sample_size"] == 96
    assert made(source, "unet")["attention_head_dim"] == [2, 4]
    assert made(source, "vae")["scaling_factor"] == 0.13


@pytest.mark.parametrize(
    ("marks", "metadata", "beside", "said"),
    [
        ({"v_pred": MARK}, {"modelspec.prediction_type": "epsilon"}, {},
         "says prediction_type v_prediction, and modelspec.prediction_type says epsilon: the former counts"),
        ({"v_pred": MARK}, {}, {".yaml": 'model: {params: {parameterization: "eps"}}'},
         "m.yaml says prediction_type epsilon, and v_pred in the file says v_prediction: the former counts"),
        ({}, {"modelspec.architecture": "stable-diffusion-xl-v1-base"}, {},
         "modelspec.architecture says stable-diffusion-xl-v1-base, and its tensors are of 1.x"),
        ({}, {"ss_base_model_version": "sd_v2"}, {}, "ss_base_model_version says sd_v2, and its tensors are of 1.x"),
        ({}, {"modelspec.prediction_type": "flow"}, {}, "modelspec.prediction_type 'flow' is unknown, and ignored"),
        ({}, {"modelspec.timestep_range": "0,199"}, {}, "was trained for the timesteps 0,199 alone"),
        ({"ztsnr": MARK}, {}, {}, "models with zero terminal SNR are expected to predict v"),
        ({}, {}, {".json": "{"}, "m.json is not JSON, and ignored"),
    ],
)  # fmt: skip
def test_contradictions_are_told(
    tmp_path: Path,
    first: Tensors,
    marks: Tensors,
    metadata: dict[str, str],
    beside: dict[str, Any],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made(write(tmp_path, {**first, **marks}, metadata, beside))
    assert said in caplog.text


def test_the_log_has_the_source_of_each_statement(
    tmp_path: Path, first: Tensors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    beside = {".yaml": "model: {params: {linear_end: 0.02}}"}
    made(write(tmp_path, {**first, "v_pred": MARK, "ztsnr": MARK}, {"modelspec.resolution": "768"}, beside))
    assert (
        "m.safetensors says of itself: beta_end 0.02 (m.yaml); prediction_type v_prediction (v_pred in the file); "
        "rescale_betas_zero_snr True (ztsnr in the file); pixels 768 (modelspec.resolution)"
    ) in caplog.text


@pytest.mark.parametrize(
    ("marks", "beside", "said"),
    [
        ({"edm_mean": MARK}, {}, r"m.safetensors: not supported yet: EDM \(edm_mean\)"),
        ({}, {_OPERATORS: {"prediction_type": "w"}}, "m.config/scheduler: prediction_type 'w' is invalid: known: eps"),
        ({}, {".json": {"prediction_type": 3}}, "m.json: prediction_type 3 is invalid"),
        ({}, {".yaml": "model: {params: {linear_start: -1}}"}, "m.yaml: linear_start -1 is invalid: expected a pos"),
        ({}, {".yaml": "model: {params: {scale_factor: big}}"}, "m.yaml: scale_factor 'big' is invalid"),
        ({}, {".yaml": "model: {params: {beta_schedule: cosine}}"}, "m.yaml: beta_schedule 'cosine' is invalid"),
        ({}, {".yaml": "model: {params: {unet_config: {params: {context_dim: 768}}}}"},
         r"m.yaml: unet_config: cross_attention_dim 768 is invalid: .*m.safetensors has 64"),
    ],
)  # fmt: skip
def test_invalid_values_are_refused(
    tmp_path: Path, first: Tensors, marks: Tensors, beside: dict[str, Any], said: str
) -> None:
    with pytest.raises(LoadError, match=said):
        made(write(tmp_path, {**first, **marks}, {}, beside))


@pytest.fixture(scope="module")
def zero_snr_config(first: Tensors, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made(write(tmp_path_factory.mktemp("zero_snr"), {**first, "v_pred": MARK, "ztsnr": MARK}))


@pytest.mark.parametrize("name", ["Euler", "DDIM", "DPM++ 2M", "UniPC", "Euler a", "LCM"])
def test_zero_snr_is_that_of_diffusers(zero_snr_config: dict[str, Any], name: str) -> None:
    factory = SchedulerFactory(zero_snr_config)
    found = factory.make(name, 5)
    expected = type(found)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip
    expected.set_timesteps(5)
    assert torch.equal(found.timesteps, expected.timesteps)
    torch.testing.assert_close(found.alphas_cumprod, expected.alphas_cumprod)
    assert float(found.alphas_cumprod[-1]) < 1e-6
    assert factory.warning(name) is None


def test_a_scheduler_without_zero_snr_is_told() -> None:
    config = dict(diffusers.DDIMScheduler(rescale_betas_zero_snr=True).config)
    assert "PNDM cannot start from noise alone" in str(SchedulerFactory(config).warning("PNDM"))
    assert SchedulerFactory({}).warning("PNDM") is None
