"""Makes models for optimum-intel and OpenVINO GenAI, with optimum-intel's own tools.

``python -m benchmarks.contenders.openvino_models KIND SOURCE FOLDER``: ``export`` turns a checkpoint into OpenVINO's
form with weights in half precision; ``full`` and ``hybrid`` quantize such a model to 8 bits, in the two ways that the
library has for diffusion models: all of the UNet, or weights everywhere and activations in convolutions alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

# The networks' work does not depend on the text, and the library draws 50 steps for each.
_PROMPTS = ["a red apple on a blue background"]
_SAMPLES = 8


def export(source: Path, folder: Path) -> None:
    """Return the networks and the tokenizers."""
    tool = Path(sys.executable).with_name("optimum-cli")
    command = [str(tool), "export", "openvino", "--model", str(source)]
    subprocess.run([*command, "--task", "text-to-image", "--weight-format", "fp16", str(folder)], check=True)


def quantize(kind: str, source: Path, folder: Path) -> None:
    """8 bits in the UNet, by a short calibration."""
    from optimum.intel import OVQuantizationConfig, OVStableDiffusionPipeline, OVWeightQuantizationConfig

    common = {"dataset": _PROMPTS, "num_samples": _SAMPLES}
    if kind == "hybrid":
        config = OVWeightQuantizationConfig(bits=8, quant_method="hybrid", **common)
    else:
        config = OVQuantizationConfig(bits=8, **common)
    OVStableDiffusionPipeline.from_pretrained(source, quantization_config=config).save_pretrained(folder)
    for tokenizer in source.glob("*tokenizer"):  # GenAI's, which optimum-intel does not know of
        shutil.copytree(tokenizer, folder / tokenizer.name, dirs_exist_ok=True)


def main() -> None:
    """Return the command line."""
    kind, source, folder = sys.argv[1:]
    if kind == "export":
        export(Path(source), Path(folder))
    else:
        quantize(kind, Path(source), Path(folder))


if __name__ == "__main__":
    main()
