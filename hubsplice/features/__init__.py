"""Where encoders and directions come from: SAEs, steering vectors, linear probes.

In comes what a recipe names; out go `Feature` and `Probe` objects, exact or with a word on what
they approximate. It may import `intervention` and what stands above it.
"""
