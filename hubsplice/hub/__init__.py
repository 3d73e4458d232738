"""Publishing to the Hugging Face Hub: one commit, one tag, nothing sent twice.

In comes a folder that was built; out goes a revision on the Hub, or a plan of it. It may import
`verify` and what stands above it.
"""
