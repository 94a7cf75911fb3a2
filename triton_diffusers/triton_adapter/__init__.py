"""The border to Triton's Python backend: the only package that imports ``triton_python_backend_utils``.

``mailbox`` serves the generating models, ``jobs`` the job board; both are called by a ``model.py``.
"""
