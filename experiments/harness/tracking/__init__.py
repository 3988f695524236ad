"""Tracking of runs: what a command measures, as it measures it, goes to a file of JSON lines and, if wanted, to wandb.

A `Tracker` sends everything to its backends. One that fails is reported on stderr and dropped, and the run continues.

```python
with open_tracker(directory, Identity("train", config), Wandb(), resume_after=restored_step) as tracker:
    for step in range(first_step, steps):
        tracker.log({"loss": loss}, step)  # before the checkpoint of this step is saved
    tracker.summarize({"accuracy": accuracy})
```

`log.jsonl` holds a JSON object on each line, written and flushed at once. The first is the run's identity: `command`,
`group`, `version` of phantom_jax, `config`. Then come, in the order in which they were logged,

- points, `{"step": 3, "loss": 0.5}`;
- `{"summary": {NAME: VALUE}}`, `{"table": NAME, "rows": [{COLUMN: CELL}]}`, `{"figure": NAME, "file": PATH}` and
  `{"artifact": NAME, "kind": KIND, "file": PATH}`, the path being relative to the log where it is below its directory;
- at the end, `{"failed": false}`, or true if the run ended in an error.

Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity", which `float` reads.
"""

from experiments.harness.tracking.backend import Backend, Identity
from experiments.harness.tracking.json_lines import read_points
from experiments.harness.tracking.tracker import Tracker, logged_group, open_tracker
from experiments.harness.tracking.wandb_run import MODES, Wandb

__all__ = ["MODES", "Backend", "Identity", "Tracker", "Wandb", "logged_group", "open_tracker", "read_points"]
