"""Plain files: safetensors headers, strict JSON, checksums, copies, folders that appear whole.

Input: paths and bytes. Output: bytes that were checked, and files that are never half written.
Nothing here knows what a model is. May import only errors.
"""
