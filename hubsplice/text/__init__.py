"""Text to calibrate and to measure on: documents of several sources, as token sequences.

In come a `TextSource` and a tokenizer; out go token ids, the same ones for the same seed, of which
calibration and held-out text never share a document. It may import `checkpoint` and what stands
above it.
"""
