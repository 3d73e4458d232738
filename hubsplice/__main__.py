"""`python -m hubsplice`."""

from hubsplice.cli import main

main()
