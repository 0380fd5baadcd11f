"""Does a paper help on my table? The Python face of `look`, `compare`, `fit` and `predict`, in a minute on a CPU."""

import papertrial as pt

data = pt.open("breast_cancer")  # or "customers.csv", target="churned"
print(data.look())

comparison = pt.compare(  # without `folds`, so few rows are judged in 5 folds, each a test row once: better, and longer
    ["rtdl:resnet"], data, folds="none", seeds=2, budget="2s", worth=False, out="runs/example-compare", progress=False
)
print("\n".join(comparison.lines()))

model = pt.fit("rtdl:resnet", data, budget="2s", out="runs/example-fit", progress=False)
answers = model.predict(data)
print({name: column[:3] for name, column in answers.items()})
