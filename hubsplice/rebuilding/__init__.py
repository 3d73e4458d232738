"""What a spliced model was made from: built again, given back, and compared with another model.

Input: one or two spliced models, or recipes. Output: how far they are the same. May import
`verifying` and what is above it.
"""
