"""Ways to run Stable Diffusion 1.5 that ``benchmarks.engines`` compares, each in a process of its own.

The modules here run in virtual environments that have neither this project nor each other's packages: they import
nothing of the project but this package. (Ours is the exception; it runs in the project's own environment.)
"""
