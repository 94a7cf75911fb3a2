"""Trains the embedded translator: a small Marian model, Chinese to English, of the words that name emoji.

Run `python -m training.translator --help`.
"""
