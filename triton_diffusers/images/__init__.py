"""Images: read, fitted, pasted back, encoded, and their metadata.

PIL and NumPy only, since most of this runs beside the engine's thread.
"""
