"""The model repository as a clone has it: git keeps no empty folders, and Triton wants every version's."""

from __future__ import annotations

from triton_diffusers.model_config import REPOSITORY, configs


def test_every_model_has_a_version_that_a_clone_has_too() -> None:
    for model in configs():
        assert [path for path in (REPOSITORY / model / "1").iterdir() if path.is_file()], model
