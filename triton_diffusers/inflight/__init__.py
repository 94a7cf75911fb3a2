"""In-flight batching: requests join and leave the running batch between denoising steps.

``loop`` admits jobs, advances them turn by turn, and finishes them; ``turn`` decides what a turn does; ``job`` is the
state of one request; ``admission`` makes a request ready for its first step, ``text`` its prompts.
"""
