"""The choice of the engine that serves: at the start, and by a background build while serving.

``policy`` reads the two settings, ``choice`` finds and loads a fitting artifact, and ``optimizer`` builds a missing one
in a low-priority ``process`` and swaps it in. How an engine works is unknown here.
"""
