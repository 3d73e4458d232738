"""A model's folder: reading the base, writing the result, and the manifest.

Input: a folder or a Hub id, and new tensors by name. Output: a checkpoint that holds every tensor
of the base byte for byte. May import `recipe` and what is above it.
"""
