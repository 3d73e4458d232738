"""The arithmetic: from a site and its calibration to the tensors of a decoder layer.

In come ridge functions, activations and a precision; out goes a `CompiledLayer`, by role and not by
any family's names. It knows no family. It may import `streams` and what stands above it.
"""
