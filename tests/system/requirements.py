"""Print what the guest's Python needs: fastprovd's dependencies and its extra `system-test`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
for requirement in project["dependencies"] + project["optional-dependencies"]["system-test"]:
    sys.stdout.write(requirement + "\n")
