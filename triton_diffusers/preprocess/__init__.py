"""Preprocessors of ControlNets: from a picture to the picture that controls.

What is imported here is light; ``preprocessors.Preprocessors`` does the work.
"""

from triton_diffusers.preprocess.registry import PREPROCESSORS, WEIGHTS

__all__ = ["PREPROCESSORS", "WEIGHTS"]
