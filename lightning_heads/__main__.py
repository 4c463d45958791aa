"""Runs the command line: `python -m lightning_heads`."""

import sys

from .cli.commands import HELP


def run() -> None:
    """Runs `main` without returning its result, which the installed script would take for an exit status.

    Of an error that a check of this package raised, only its text is printed; of others, the traceback too.
    """
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(HELP)
        return
    if not sys.argv[1:]:
        sys.exit(f"{HELP}\n\nerror: Expected a command, but got none")
    from .cli.main import main  # loading torch and Lightning takes seconds

    try:
        main()
    except (ValueError, OSError) as error:
        if not _is_from_this_package(error):
            raise
        sys.exit(f"error: {error}")


def _is_from_this_package(error: Exception) -> bool:
    """Returns whether an exception was raised by code of this package, not by what it calls."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else traceback.tb_frame.f_globals["__name__"]
    return bool(module.startswith("lightning_heads."))


if __name__ == "__main__":
    run()
