"""Fixtures of the loop's tests."""

from __future__ import annotations

import pytest

from triton_diffusers.inflight.admission import AdmissionBudget


@pytest.fixture
def without_admission_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make shared calls independent of the time that admission takes; see ``test_admission_budget``."""
    monkeypatch.setattr(AdmissionBudget, "allows", lambda self, running: True)
