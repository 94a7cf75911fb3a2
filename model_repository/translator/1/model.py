"""Prompts: Chinese to English."""

from triton_diffusers.triton_adapter.models import TranslatorModel


class TritonPythonModel(TranslatorModel):
    """Translates what is Chinese of prompts."""
