"""What the composite actions run: targets, summaries, checks of what was published.

Input: the environment of a workflow, and the output of the command line. Output: step summaries and
step outputs. May import `hub` and what is above it.
"""
