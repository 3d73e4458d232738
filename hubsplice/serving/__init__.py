"""Serving spliced models: what engines honour, the commands that start them, quantisation."""
