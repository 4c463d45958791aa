"""Runs the command line: `python -m lightning_heads`."""

from .cli import main

if __name__ == "__main__":
    main()
