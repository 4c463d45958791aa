"""Runs the command line: `python -m lightning_heads`."""

from .cli import main


def run() -> None:
    """Runs `main` as an installed script, which takes what is returned for an exit status."""
    main()


if __name__ == "__main__":
    run()
