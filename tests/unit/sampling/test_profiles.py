"""Steps that profiles shorten, and names of profiles."""

from __future__ import annotations

import pytest

from tests.unit.conftest import DEFAULTS, tensors
from tools import reference
from triton_diffusers.api.contract import INPUTS
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.sampling.profiles import EXACT, PROFILES, Profile
from triton_diffusers.settings import Settings, SettingsError


def whole(profile: Profile, calls: int) -> list[int]:
    return [call for call in range(calls) if profile.is_whole(call, calls)]


def test_whole_calls() -> None:
    third = Profile(name="third", period=3)
    assert whole(third, 8) == [0, 3, 6, 7]
    assert whole(third, 7) == [0, 3, 6]
    assert whole(third, 2) == [0, 1]
    assert whole(third, 1) == [0]
    assert whole(EXACT, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize(("share", "calls", "guided"), [(0.6, 20, 12), (0.6, 1, 1), (0.6, 3, 2), (1.0, 7, 7)])
def test_guided_calls(share: float, calls: int, guided: int) -> None:
    profile = Profile(name="some", guided=share)
    assert [profile.is_guided(call, calls) for call in range(calls)] == [True] * guided + [False] * (calls - guided)


def test_only_exact_computes_every_step() -> None:
    for name, profile in PROFILES.items():
        assert name == profile.name
        assert (profile.period == 1 and profile.guided == 1) is (profile is EXACT)


def test_every_name_is_in_the_reference() -> None:
    for name in PROFILES:
        assert f"`{name}`" in reference.page()
        assert f"`{name}`" in (Settings.model_fields["profile"].description or "")


def test_a_request_has_the_profile_it_names_or_the_servers() -> None:
    def decoded(settings: Settings, **fields: str) -> Profile:
        return decode_request(read_values(tensors(**fields), INPUTS), settings, DEFAULTS).profile

    assert decoded(Settings()) is EXACT
    assert decoded(Settings(), profile="cached") is PROFILES["cached"]
    assert decoded(Settings(profile="fast")) is PROFILES["fast"]
    assert decoded(Settings(profile="fast"), profile="exact") is EXACT


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    known = "exact, cached, guidance-interval, fast"
    with pytest.raises(InvalidRequest, match=f"profile: 'turbo' is invalid: must be one of: {known}"):
        decode_request(read_values(tensors(profile="turbo"), INPUTS), Settings(), DEFAULTS)
    with pytest.raises(SettingsError, match=f"TRITON_DIFFUSERS_PROFILE: 'turbo' is invalid: .*known: {known}"):
        Settings.read({"profile": "turbo"})
