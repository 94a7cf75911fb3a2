"""Table of families."""

from __future__ import annotations

import subprocess
import sys

import pytest

from triton_diffusers.families.family import Family, family_class
from triton_diffusers.families.registry import COMPONENTS, FAMILIES, NETWORKS, FamilyEntry, family_of


@pytest.mark.parametrize("entry", FAMILIES, ids=lambda entry: entry.name)
def test_each_family_has_its_entry(entry: FamilyEntry) -> None:
    found = family_class(entry)
    assert issubclass(found, Family)
    assert found.entry is entry
    assert set(entry.networks) <= set(NETWORKS)
    assert set(entry.components) <= set(COMPONENTS)


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("StableDiffusionPipeline", "Stable Diffusion"),
        ("StableDiffusionInpaintPipeline", "Stable Diffusion"),
        ("", "Stable Diffusion"),
    ],
)
def test_pipelines_name_their_family(pipeline: str, name: str) -> None:
    assert family_of({"_class_name": pipeline}).name == name


def test_the_table_does_not_import_pytorch() -> None:
    code = "import sys, triton_diffusers.families.registry; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
