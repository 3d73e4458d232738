"""Fidelity: how far a spliced model is from the hook, on text that calibration never saw.

In come two folders and an intervention; out goes a report, and one sentence that sums it up. It may
import `compiling` and what stands above it.
"""
