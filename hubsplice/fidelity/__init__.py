"""Measuring how faithful a spliced model is to the hook that it was compiled from."""
