"""Gives the models below a volume what they are to go by: ``set_serving.py FOLDER VOLUME``, once all of it is valid.

``NAME.json`` in the folder becomes ``serving.json`` of model ``NAME``, each whole or not at all.
"""

import sys
from pathlib import Path

from service.inference.plan import SERVING_FILE, InvalidPlan, plan_of, write_plan

folder, volume = map(Path, sys.argv[1:])
plans = {}
for file in sorted(folder.glob("*.json")):
    try:
        plans[file.stem] = plan_of(file.read_bytes())
    except InvalidPlan as error:
        sys.exit(f"{file.name} cannot be followed: {error}")
    missing = [number for number in sorted(plans[file.stem].named) if not (volume / file.stem / str(number)).is_dir()]
    if missing:
        sys.exit(f"{file.name} names version {missing[0]}, which {file.stem} does not have")
for name, plan in plans.items():
    write_plan(volume / name, plan)
    print(f"{SERVING_FILE} of {name} is set")
