"""A small UNet, and a ControlNet for it, as the tests of the files see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.controlnet_files import random_controlnet
from tests.unit.checkpoints.original import unet


@pytest.fixture(scope="session")
def unet_config() -> Mapping[str, Any]:
    return dict(unet().config)


@pytest.fixture(scope="session")
def network(unet_config: Mapping[str, Any]) -> Any:
    return random_controlnet(unet_config)
