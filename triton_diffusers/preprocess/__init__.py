"""Preprocessors of ControlNets: from a picture to the picture that controls.

What is imported here is light; ``preprocessors.Preprocessors`` does the work.
"""

from triton_diffusers.preprocess.names import PREPROCESSORS
from triton_diffusers.preprocess.weights import WEIGHTS

__all__ = ["PREPROCESSORS", "WEIGHTS"]
