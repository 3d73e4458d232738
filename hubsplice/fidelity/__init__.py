"""Fidelity: how far a spliced model is from the hook, on text that calibration never saw.

Input: two folders and an intervention. Output: a report, and one sentence that sums it up. May
import `compiling` and what is above it.
"""
