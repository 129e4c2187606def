"""Write requirements.lock and environment.yml: one exact version of everything, for every platform.

CUDA's own packages are left out: which of them are needed follows from the PyTorch build that pip chooses.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TORCH = "torch==2.13.0"
ENVIRONMENT = """\
# Made by `make lock` from requirements.lock: the same versions, for conda and Binder.
name: framepred
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - make
  - pip:
"""

constraint = ROOT / ".ci" / "constraints.txt"
constraint.write_text(TORCH + "\n")
command = [
    sys.argv[1], "pip", "compile", "pyproject.toml", "--extra", "book", "--extra", "test", "--extra", "bench", "--universal", "--fork-strategy", "fewest",
    "--python-version", "3.11", "--no-header", "--no-annotate", "--quiet", "-c", str(constraint),
]  # fmt: skip
resolved = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
constraint.unlink()
pins = [line for line in resolved if not line.startswith(("nvidia-", "cuda-", "triton"))]
(ROOT / "requirements.lock").write_text("\n".join(pins) + "\n")
quoted = "".join(f'      - "{pin}"\n' for pin in pins)
(ROOT / "environment.yml").write_text(ENVIRONMENT + quoted + '      - "-e ."\n')
