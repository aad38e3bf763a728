"""A model for the Python workers: trained on first use from the iris data set that scikit-learn ships."""

from __future__ import annotations

import functools
from typing import Any


def predict(sepal_length: float, sepal_width: float, petal_length: float, petal_width: float) -> dict[str, Any]:
    """The likely species of a flower of these measures in centimetres, and how likely it is."""
    model, species = _model()
    shares = model.predict_proba([[sepal_length, sepal_width, petal_length, petal_width]])[0]
    best = int(shares.argmax())
    return {"species": species[best], "probability": round(float(shares[best]), 4)}


@functools.cache
def _model() -> tuple[Any, list[str]]:
    # Imported here: a worker is ready at once, and only the worker that is asked for a prediction pays for the library.
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    model = LogisticRegression(max_iter=1000).fit(data.data, data.target)
    return model, [str(name) for name in data.target_names]
