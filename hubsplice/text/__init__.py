"""Tokens for calibration and for held-out measurement, from the recipe's text sections."""
