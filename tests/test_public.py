"""The public names of the package, and that they are loaded when one of them is first used."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import IO, cast

import pytest

import lightning_heads as lh
from lightning_heads import public

# Imports the libraries that take seconds once, then runs each script in a fork, which imports this package anew.
_SERVER = """
import json, os, sys, traceback
import lightning.pytorch.cli, timm, torch, torchmetrics, torchvision
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        try:
            exec(json.loads(line), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def run_script() -> Iterator[Callable[[str], None]]:
    """Runs a script in a process that has not imported this package yet."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        stdin, stdout = cast(IO[str], server.stdin), cast(IO[str], server.stdout)

        def run(script: str) -> None:
            print(json.dumps(script), file=stdin, flush=True)
            assert stdout.readline().strip() == "0", "the script failed; see its traceback in the captured stderr"

        yield run
        stdin.close()


def test_all_public_names_are_attributes_of_the_package() -> None:
    assert lh.__all__ == public.__all__
    for name in public.__all__:
        assert getattr(lh, name) is getattr(public, name)
        assert name in dir(lh)
    assert "__version__" in dir(lh)


def test_no_public_name_is_hidden_by_a_module() -> None:
    for name in public.__all__:
        with pytest.raises(ModuleNotFoundError):
            import_module(f"lightning_heads.{name}")


def test_the_import_alone_loads_nothing() -> None:
    script = "import lightning_heads, sys; assert not {'torch', 'lightning', 'timm'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("first", ["lh.EMA", "lh.data.read_image", "dir(lh)", "lh.__all__"])
def test_the_first_use_of_a_name_loads_all(run_script: Callable[[str], None], first: str) -> None:
    """With all classes imported, any `LightningCLI` knows them by their short names."""
    run_script(f"import lightning_heads as lh; {first}; assert 'ImageClassifier' in vars(lh)")


def test_star_import_gives_all_names(run_script: Callable[[str], None]) -> None:
    run_script("from lightning_heads import *; ImageClassifier; lr_find")


def test_a_subpackage_may_be_imported_first(run_script: Callable[[str], None]) -> None:
    run_script("import lightning_heads.callbacks; import lightning_heads as lh; lh.lr_find; lh.FeatureCache")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'lightning_heads' has no attribute 'ImageClasifier'"):
        lh.ImageClasifier  # type: ignore[attr-defined]  # noqa: B018


def test_any_lightning_cli_knows_classes_by_their_import_paths(run_script: Callable[[str], None]) -> None:
    run_script(
        "from lightning.pytorch import LightningModule\n"
        "from lightning.pytorch.cli import LightningCLI\n"
        "model = ['--model=lightning_heads.ImageClassifier', '--model.encoder=test_resnet', '--model.num_classes=2']\n"
        "trainer = ['--trainer.callbacks=lightning_heads.OneCycle', '--trainer.accelerator=cpu']\n"
        "args = [*model, '--model.pretrained=false', *trainer]\n"
        "cli = LightningCLI(LightningModule, subclass_mode_model=True, run=False, args=args)\n"
        "assert type(cli.model).__name__ == 'ImageClassifier'\n"
    )


def test_the_module_runs_as_a_command(run_script: Callable[[str], None]) -> None:
    run_script(
        "import contextlib, io, runpy, sys\n"
        "sys.argv = ['lightning_heads', 'validate', '--help']\n"
        "shown = io.StringIO()\n"
        "try:\n"
        "    with contextlib.redirect_stdout(shown):\n"
        "        runpy.run_module('lightning_heads', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stopped:\n"
        "    assert stopped.code == 0\n"
        "assert '--ckpt_path' in shown.getvalue()\n"
    )
