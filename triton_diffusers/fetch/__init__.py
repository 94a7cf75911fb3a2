"""Fetching what a caller's link leads to, without becoming the caller's way into the operator's network.

``links`` follows a link; ``target`` is what may be written in one; ``addresses`` says which addresses may be reached;
``transport`` connects to just those, within the time that is left; ``queue`` takes the links of all requests in turn.
"""

from triton_diffusers.fetch.links import LinkFetcher
from triton_diffusers.fetch.queue import LinkQueue

__all__ = ["LinkFetcher", "LinkQueue"]
