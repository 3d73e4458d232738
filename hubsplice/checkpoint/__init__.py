"""A model's folder: the base as it is found, the result as it is written, and its manifest.

In come a folder or a Hub id, and tensors by name; out goes a checkpoint in which every tensor of
the base is there byte for byte. It may import `recipe` and what stands above it.
"""
