"""The model repository as a clone has it: git keeps no empty folders, and Triton wants every version's."""

from __future__ import annotations

import subprocess
import sys

from tools.model_config import REPOSITORY, configs

# Those that have a process of their own.
MODELS = ("sd_base", "sd_controlnet", "jobs", "translator")


def test_every_model_has_a_version_that_a_clone_has_too() -> None:
    for model in configs():
        assert [path for path in (REPOSITORY / model / "1").iterdir() if path.is_file()], model


def test_a_models_file_has_its_contract_and_nothing_of_weight() -> None:
    """Triton also loads the file in a process that only completes the config, and has none of its utilities."""
    program = (
        "import runpy, sys; from triton_diffusers.api.contract import CONTRACTS; "
        "models = {name: runpy.run_path(path)['TritonPythonModel'] for name, path in "
        "zip(sys.argv[1::2], sys.argv[2::2])}; "
        "print([name for name, model in models.items() if getattr(model, 'contract', None) is CONTRACTS[name]], "
        "{'torch', 'numpy', 'PIL', 'triton_python_backend_utils'} & set(sys.modules))"
    )
    arguments = [word for name in MODELS for word in (name, str(REPOSITORY / name / "1" / "model.py"))]
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['sd_base', 'sd_controlnet'] set()"
