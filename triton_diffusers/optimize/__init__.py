"""Which engine serves: chosen at the start, and built in the background and changed while serving, if it is wished.

``wishes`` reads the two settings, ``choice`` finds and loads what fits, ``optimizer`` has built what is missing, in a
``process`` of low priority, and has it take over. Nothing here knows what an engine does.
"""
