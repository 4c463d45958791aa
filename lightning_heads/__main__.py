"""Runs the command line: `python -m lightning_heads`."""

import sys

COMMANDS = {
    "fit": "Trains a task, and writes logs and checkpoints.",
    "validate": "Scores a checkpoint on the validation data.",
    "test": "Scores a checkpoint on the test data.",
    "predict": "Predicts by a checkpoint, into csv files or images.",
    "lr-find": "Suggests a learning rate, and draws the loss over it.",
    "embed": "Embeds the images of a folder into an index.",
    "nearest": "Finds the images of an index that look like one.",
}
HELP = """usage: lightning-heads COMMAND [ARGUMENTS]

{}

What a command takes: lightning-heads COMMAND --help. All of it may stand in a yaml: --config FILE."""


def run() -> None:
    """Runs `main` as an installed script, which takes what is returned for an exit status."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(HELP.format("\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())))
        return
    from .cli.main import main  # loading torch and Lightning takes seconds

    main()


if __name__ == "__main__":
    run()
