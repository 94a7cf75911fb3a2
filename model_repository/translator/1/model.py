"""Prompts: Chinese to English."""

from triton_diffusers.triton_backend.models import TranslatorModel


class TritonPythonModel(TranslatorModel):
    """Translates what is Chinese of prompts."""
