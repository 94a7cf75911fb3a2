"""Translate the Chinese parts of prompts to English, without changing a prompt's syntax.

``syntax`` splits a prompt into pieces to translate and pieces to keep; ``translator`` translates the former with one of
the ``engines``, caches them and joins the prompt; ``folder`` recognises the kind of model in a folder.
"""
