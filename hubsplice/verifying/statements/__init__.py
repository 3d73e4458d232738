"""What the files of a checkpoint say about it: worked out again where that is possible.

What can't be worked out from the files and the base is listed, field by field, as its author's
claims. Nothing here runs a model.
"""
