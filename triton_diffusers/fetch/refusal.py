"""Why a link is not followed."""

from __future__ import annotations


class LinkRefused(Exception):
    """``limit`` says what would be accepted. It tells nothing about the network that the server is in."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit
