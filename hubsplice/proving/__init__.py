"""What the weights of an inserted layer do, worked out from the weights.

Input: an inserted layer's tensors and the intervention that they stand for. Output: every neuron's
part in the edit, or what it has no business to do, and the strengths and thresholds that the
weights hold. No text is read and no model is run but in `response`, which asks the layer for what
it makes of streams. May import `building` and what is above it.
"""
