"""What a campaign remembers between its calls: one JSON file, written whole, in the folder that holds its runs."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from campaigning.plan import PlanError

NAME = "campaign.json"


class State:
    """The state of a campaign. `runs` holds for each run, by name:

    status: "training", "trained", "scored" or "done".
    until: seconds of training, as run.json counts them, at which the run ends. reserve: seconds for its scoring.
    steps: that are planned. slices: calls of the notebook so far, since the plan began.
    speed: seconds of a step, a validation, the start. overhead: seconds of a call that are none of training.
    accumulate, compile: what this machine made of the plan's. failed: why the last try failed. result: what came out.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / NAME
        self.campaign = uuid.uuid4().hex
        self.runs: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                self.campaign, self.runs = str(content["campaign"]), dict(content["runs"])
            except (ValueError, KeyError, TypeError) as error:
                raise PlanError(f"{self.path} is damaged or none of ours; give another folder with --state") from error

    def entry(self, name: str) -> dict[str, Any]:
        """What is known of a run, to be changed and saved."""
        return self.runs.setdefault(name, {})

    def done(self, name: str) -> bool:
        return self.runs.get(name, {}).get("status") == "done"

    def save(self) -> None:
        from framepred.files import write_text

        text = json.dumps({"campaign": self.campaign, "runs": self.runs}, indent=2)
        write_text(self.path, text + "\n")

    def run_folder(self, name: str) -> Path:
        """Where a run is trained."""
        return self.folder / name

    def scored_folder(self, name: str) -> Path:
        """Where the copy of a run lies that is scored, and then published as it is."""
        return self.folder / "scored" / name
