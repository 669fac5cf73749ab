"""Converting a checkpoint: CTranslate2's own converter, in a process and a Python of its own.

torch and transformers weigh gigabytes and stay out of the lock: they are looked for in the Python
that runs `penstock`, or in the one that `PENSTOCK_CONVERTER_PYTHON` names.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from penstock.errors import OperatorError

CONVERTER_PYTHON_VARIABLE = "PENSTOCK_CONVERTER_PYTHON"
QUANTIZATIONS = ("int8", "float16", "int8_float16", "float32")
_REQUIREMENTS = "ctranslate2==4.8.5 torch==2.13.0 transformers==5.23.0"
_PROBE = (
    "import importlib.util as u, sys;"
    " sys.exit(not all(map(u.find_spec, ('torch', 'transformers', 'ctranslate2'))))"
)
# Not `-m`: the converter's module goes on defining things after its `__main__` part.
_CONVERT = "from ctranslate2.converters.transformers import main; main()"
_LAST_LINES = 3


def convert(
    checkpoint: Path, destination: Path, quantization: str, environ: Mapping[str, str]
) -> None:
    """Fill `destination` (which is empty) with the converted model. Blocks, for minutes perhaps.

    No code of the checkpoint's is run, and nothing is downloaded.

    Raises:
        OperatorError: The converter is not installed, or cannot convert this.
    """
    python = environ.get(CONVERTER_PYTHON_VARIABLE) or sys.executable
    _require_converter(python, environ)
    arguments = ["--model", str(checkpoint), "--output_dir", str(destination), "--force"]
    arguments += ["--quantization", quantization, "--low_cpu_mem_usage"]
    done = _run([python, "-c", _CONVERT, *arguments], environ)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-_LAST_LINES:]
        raise OperatorError(
            f"CTranslate2's converter cannot convert {checkpoint}.",
            "It says: " + " ".join(line.strip() for line in said),
        )
    _write_absent_tokens(destination / "config.json")


def _write_absent_tokens(path: Path) -> None:
    """Where a tokenizer has no unknown token the converter writes null for some architectures.

    CTranslate2 then refuses the model; for Llama and Qwen the converter writes "" instead.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    absent = {name: "" for name, value in config.items() if value is None and "_token" in name}
    path.write_text(json.dumps(config | absent, indent=2) + "\n", encoding="utf-8")


def _require_converter(python: str, environ: Mapping[str, str]) -> None:
    try:
        found = _run([python, "-c", _PROBE], environ).returncode == 0
    except OSError:
        found = False
    if not found:
        raise OperatorError(
            f"Converting needs torch and transformers, which {python} does not have.",
            "Make them an environment of their own and name it: python3 -m venv converter;"
            f" converter/bin/pip install {_REQUIREMENTS}; export {CONVERTER_PYTHON_VARIABLE}="
            "$PWD/converter/bin/python. Or add a model that is converted already.",
        )


def _run(command: list[str], environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  our own command, no shell
        command,
        env={**environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
