"""From a log to scored candidates in one file; the README shows it, tests/test_examples.py runs it.

python examples/quickstart.py
"""

from prerank import build
from prerank.config import parse
from prerank.run import train
from prerank.serving import Request, Scorer, export, open_current

settings = {
    "data": {"recipe": "simulated", "options": {"users": 500, "items": 300, "impressions": 40_000}},
    "model": {"name": "inttower", "hidden": [64, 32], "heads": 2, "head_width": 16},
    "objective": [{"loss": "logloss", "label": "click"}, {"loss": "cir", "weight": 0.01}],
    "training": {"epochs": 3, "batch_size": 512, "threads": 1},
    "output": "runs/quickstart",
}
config = parse(settings)
run, result = train(config, overwrite=True)
print(run.evaluate("test")["click"])

logits = run.logits("validation")
folder = export(run.dataset, run.model, folder="runs/quickstart/generations", options=config.model.model_dump(), calibrate_on=logits)
scorer = Scorer(open_current(folder), build.served)
best = scorer.score([Request(user=1, candidates=list(range(1, 301)), k=3, context={"scene": 2, "hour": 20})])[0]
print(best.items, [round(p, 3) for p in best.probabilities["click"]])
