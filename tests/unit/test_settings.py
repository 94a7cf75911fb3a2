"""Settings from the environment and from a model's parameters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.triton_backend.parameters import settings_of


def test_every_setting_has_a_description_and_a_default() -> None:
    assert all(field.description and not field.is_required() for field in Settings.model_fields.values())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_MAX_STEPS", "20")
    monkeypatch.setenv("TRITON_DIFFUSERS_MODEL_DIR", "/models/mine")
    monkeypatch.setenv("TRITON_DIFFUSERS_CLOSE_SAFETY", "true")
    settings = Settings.read()
    assert (settings.max_steps, settings.model_dir, settings.close_safety) == (20, Path("/models/mine"), True)


def test_parameters_win_over_the_environment_where_they_are_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_MAX_STEPS", "20")
    assert Settings.read({"max_steps": "30", "max_batch": ""}).max_steps == 30
    assert Settings.read({"max_steps": ""}).max_steps == 20


def test_false_is_false() -> None:
    assert Settings.read({"close_safety": "false"}).close_safety is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch", "0"),
        ("max_batch", "many"),
        ("poll_seconds", "nan"),
        ("poll_seconds", "6"),
        ("dtype", "float8"),
        ("close_safety", "perhaps"),
        ("max_side", "63"),
        ("engine_wait_seconds", "0"),
        ("device", " , "),
        ("max_image_megabytes", "inf"),
        ("max_image_pixels", "90000000"),
        ("link_schemes", "https,file"),
        ("link_seconds", "inf"),
    ],
)
def test_a_value_that_does_not_fit_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=f"{PREFIX}{name.upper()}: '{value}' is invalid"):
        Settings.read({name: value})
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"{PREFIX}{name.upper()}: '{value}' is invalid"):
        Settings.read()


def test_an_unknown_parameter_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'max_stepz'; known: .*max_steps"):
        Settings.read({"max_stepz": "3"})


def test_an_unknown_variable_is_warned_of_with_the_nearest_setting() -> None:
    environment = {
        "TRITON_DIFFUSERS_MAX_STEP": "20",
        "triton_diffusers_zzz": "",
        "TRITON_DIFFUSERS_MAX_STEPS": "20",
        "triton_diffusers_max_side": "512",
        "TRITON_DIFFUSERS_URL": "the client's",
        "TRITON_DIFFUSERS_GATEWAY_SECRET": "the gateway's",
        "TRITON_DIFFUSERS_JOBS_MAX_ATTEMPTS": "the job table's",
        "MAX_STEP": "another's",
    }
    assert Settings.unknown(environment) == [
        "TRITON_DIFFUSERS_MAX_STEP is not a setting and is ignored; did you mean TRITON_DIFFUSERS_MAX_STEPS?",
        "triton_diffusers_zzz is not a setting and is ignored",
    ]


def test_a_list_is_written_with_commas_in_the_environment_and_in_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_LINK_ALLOW_HOSTS", "minio.local, 10.0.0.0/8,")
    assert Settings.read().link_allow_hosts == ("minio.local", "10.0.0.0/8")
    assert Settings.read({"link_allow_hosts": "fd00::/8"}).link_allow_hosts == ("fd00::/8",)


def test_sizes_are_width_and_height() -> None:
    assert Settings.read({"fixed_sizes": "512x512, 768X512,512x512"}).fixed_sizes == ((512, 512), (768, 512))
    assert Settings.read().fixed_sizes == ()


@pytest.mark.parametrize(
    "sizes", ["512", "512x", "512x512x3", "axb", "512*512", "-8x512", "0x512", "512x2056", "1032x1024"]
)
def test_sizes_that_are_none_or_too_large_are_named(sizes: str) -> None:
    with pytest.raises(
        SettingsError,
        match=rf"FIXED_SIZES: .* Value error, '?{re.escape(sizes)}'? (is not a valid size; |exceeds the sizes )",
    ):
        Settings.read({"fixed_sizes": f"64x64,{sizes}"})


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(SettingsError, match=r"LINK_ALLOW_HOSTS: .*10\.0\.0\.1/8.* is invalid: .*host bits"):
        Settings.read({"link_allow_hosts": "minio.local,10.0.0.1/8"})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.read().max_steps = 3  # type: ignore[misc]


def test_a_models_parameters_are_its_settings_but_for_the_probe_and_the_backends_own() -> None:
    config = {
        "parameters": {
            "max_steps": {"string_value": "30"},
            "probe": {"string_value": "{}"},
            "FORCE_CPU_ONLY_INPUT_TENSORS": {"string_value": "yes"},
        }
    }
    assert settings_of(json.dumps(config)) == {"max_steps": "30"}
    assert settings_of("{}") == {}


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("store_url", "images.example.com/p", "expected https://host/path"),
        ("store_url", "https:///p", "expected https://host/path"),
        ("store_url", "https://example.com/?a=", "expected https://host/path"),
    ],
)
def test_setting_that_would_fail_later_is_refused(name: str, value: str, rule: str) -> None:
    with pytest.raises(SettingsError, match=f"{PREFIX}{name.upper()}: .*{rule}"):
        Settings.read({name: value})


def test_home_directory_may_be_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings.read({"cache_dir": "~/cache"}).cache_dir == tmp_path / "cache"
