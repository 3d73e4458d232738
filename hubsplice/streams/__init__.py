"""Running models: loading them, hooking the residual stream, calibration.

In come a folder, token ids and an intervention; out go residual streams and their statistics. It
may import `text` and what stands above it.
"""
