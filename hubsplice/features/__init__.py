"""Where encoders and directions come from: SAEs, steering vectors, linear probes.

Input: what a recipe names. Output: `Feature` and `Probe` objects. They are exact, or say what they
approximate. May import `intervention` and what is above it.
"""
