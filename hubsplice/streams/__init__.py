"""Running models: loading them, hooking the residual stream, calibration.

Input: a folder, token ids and an intervention. Output: residual streams and their statistics. May
import `text` and what is above it.
"""
