"""`python -m servegrpc` is the `servegrpc` command."""

from servegrpc.cli import main

main(prog_name="servegrpc")
