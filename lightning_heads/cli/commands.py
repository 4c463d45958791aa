"""Commands of the command line, listed without importing what runs them."""

COMMANDS = {
    "fit": "Trains a task and writes logs and checkpoints.",
    "validate": "Evaluates a checkpoint on the validation data.",
    "test": "Evaluates a checkpoint on the test data.",
    "predict": "Writes the predictions of a checkpoint to csv or image files.",
    "lr-find": "Suggests a learning rate and plots the loss against it.",
    "embed": "Embeds a folder of images and writes an index.",
    "nearest": "Finds the images of an index that are most similar to a query image.",
}
EVALUATIONS = ("validate", "test", "predict")
HELP = """usage: lightning-heads COMMAND [ARGUMENTS]

{}

Arguments of a command: lightning-heads COMMAND --help. A yaml file can set all of them: --config FILE.""".format(
    "\n".join(f"  {name:10}{summary}" for name, summary in COMMANDS.items())
)
