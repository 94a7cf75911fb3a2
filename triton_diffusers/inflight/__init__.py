"""In-flight batching: requests join and leave the running batch between denoising steps.

``loop`` admits jobs, advances them turn by turn and finishes them. ``turn`` chooses the work of a turn, ``job`` holds
the state of one request, ``admission`` prepares a request for its first step, and ``text`` encodes its prompts.
"""
