"""Dialects: thin translations between a client's protocol and jobs."""
