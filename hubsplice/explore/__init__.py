"""Before a recipe: which feature, what it does to answers, and how strong; on the hook alone.

Input: a base, its SAEs and text, or a recipe. Output: tables, answers and a recipe to start from;
no checkpoint is built. May import `fidelity` and what is above it.
"""
