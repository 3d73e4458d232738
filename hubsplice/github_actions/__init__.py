"""What the steps of `.github/actions/publish` need beside the command line.

The steps are shell; whatever parses, compares or renders is here, and runs as
`python -m hubsplice.github_actions`.
"""
