"""Fetching of callers' links that cannot reach the operator's network.

``fetcher`` follows a link and ``queue`` shares the places; ``url`` says what may be written in a link,
``address_rules`` which addresses may be reached; ``transport`` connects to those alone, within the time that is left.
"""
