"""Runs the command line: `python -m lightning_heads`."""

import sys

COMMANDS = {
    "fit": "Trains a task and writes logs and checkpoints.",
    "validate": "Evaluates a checkpoint on the validation data.",
    "test": "Evaluates a checkpoint on the test data.",
    "predict": "Writes the predictions of a checkpoint to csv or image files.",
    "lr-find": "Suggests a learning rate and plots the loss against it.",
    "embed": "Embeds a folder of images and writes an index.",
    "nearest": "Finds the images of an index that are most similar to a query image.",
}
HELP = """usage: lightning-heads COMMAND [ARGUMENTS]

{}

Arguments of a command: lightning-heads COMMAND --help. A yaml file can set all of them: --config FILE."""


def run() -> None:
    """Runs `main` without returning its result, which the installed script would take for an exit status."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(HELP.format("\n".join(f"  {name:10}{summary}" for name, summary in COMMANDS.items())))
        return
    from .cli.main import main  # loading torch and Lightning takes seconds

    main()


if __name__ == "__main__":
    run()
