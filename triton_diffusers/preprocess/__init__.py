"""Preprocessors of ControlNets, which make control images of images.

Imports here are light; ``preprocessors.Preprocessors`` does the work.
"""

from triton_diffusers.preprocess.registry import PREPROCESSORS, WEIGHTS

__all__ = ["PREPROCESSORS", "WEIGHTS"]
