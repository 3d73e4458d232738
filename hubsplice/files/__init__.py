"""Plain files: safetensors headers, strict JSON, digests, copies, folders that appear whole.

In come paths and bytes; out go bytes that are checked, and files that are never half written.
Nothing here knows what a model is. It may import nothing but errors.
"""
