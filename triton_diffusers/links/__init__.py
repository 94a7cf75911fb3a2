"""Fetching of callers' links that cannot reach the operator's network.

``fetcher`` follows a link, and ``queue`` limits how many are fetched at a time. ``url`` holds the rules for a link's
text and ``address_rules`` those for its addresses; ``transport`` connects to allowed addresses only, before a deadline.
"""
