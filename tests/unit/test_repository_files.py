"""The model repository as a clone has it: git keeps no empty folders, and Triton wants every version's."""

from __future__ import annotations

import subprocess
import sys

from triton_diffusers.model_config import REPOSITORY, configs


def test_every_model_has_a_version_that_a_clone_has_too() -> None:
    for model in configs():
        assert [path for path in (REPOSITORY / model / "1").iterdir() if path.is_file()], model


def test_a_generating_models_file_has_its_contract_and_nothing_of_weight() -> None:
    """Triton also loads the file in a process that only completes the config."""
    program = (
        "import runpy, sys; from triton_diffusers.contract import CONTRACTS; "
        "print([runpy.run_path(path)['TritonPythonModel'].contract is CONTRACTS[name] for name, path in "
        "zip(sys.argv[1::2], sys.argv[2::2])], {'torch', 'numpy', 'PIL'} & set(sys.modules))"
    )
    names = ("sd_base", "sd_controlnet")
    arguments = [word for name in names for word in (name, str(REPOSITORY / name / "1" / "model.py"))]
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[True, True] set()"
