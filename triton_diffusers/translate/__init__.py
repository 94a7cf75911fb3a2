"""Translation of Chinese prompts to English: only what is Chinese, and nothing of a prompt's syntax.

``syntax`` parts a prompt into what is translated and what stays; ``translator`` translates the former with one of the
``engines``, remembers it and puts the prompt together again; ``folder`` tells what kind of model a folder holds.
"""
