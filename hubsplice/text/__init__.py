"""Text for calibration and measurement: documents from several sources, as token sequences.

Input: a `TextSource` and a tokenizer. Output: token ids, the same ones for the same seed.
Calibration text and held-out text never share a document. May import `checkpoint` and what is
above it.
"""
