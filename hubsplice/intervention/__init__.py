"""The intermediate representation: an edit as a sum of ridge functions, and its exact hook.

At a site (the residual stream after one block of a decoder layer) the edited stream is

    h + s(h) · Σ_k 1[g_k(h)] · φ_k(⟨e_k, h̃⟩ + b_k) · d_k,

where h̃ is the stream as the SAE normalises it, and s(h) undoes that scale. Each φ_k is a
`PiecewiseLinear`. The condition g_k, which most terms don't have, reads other directions of the
stream than the term, and says at which tokens the term is written. The compiler and the reference
hook read the same objects. So the distance between them is the fidelity of the compiled layer, and
of nothing else.

Input: encoders, directions and functions. Output: the change of a stream, in float32, and a
safetensors file that holds the same edit. May import `files`.
"""
