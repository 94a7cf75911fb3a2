"""ASGI middleware: limits on what callers send, and the things that every request has."""
