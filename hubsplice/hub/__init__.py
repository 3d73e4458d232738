"""Publishing to the Hugging Face Hub: one commit, one tag, nothing sent twice.

Input: a folder that was built. Output: a revision on the Hub, or the plan of one. May import
`verify` and what is above it.
"""
