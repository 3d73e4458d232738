"""The arithmetic: from a site and its calibration to the tensors of a decoder layer.

Input: ridge functions, activations and a precision. Output: a `CompiledLayer`, whose tensors are
named by their role and not by any family's names. Knows no family. May import `streams` and what is
above it.
"""
