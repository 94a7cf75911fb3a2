"""Adapter to Triton's Python backend: the only package that imports ``triton_python_backend_utils``.

``models`` has what Triton calls; ``mailbox`` answers the requests of the generating models, ``jobs`` and ``translator``
those of the others.
"""
