"""Example functions for Python workers: a classifier of irises, trained on the data set that scikit-learn ships.

scikit-learn is imported when it is first needed, so that a worker that never predicts starts in a few milliseconds.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def _model() -> tuple[Any, list[str], list[str]]:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    iris = load_iris()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(iris.data, iris.target)
    return model, [str(name) for name in iris.target_names], [str(name) for name in iris.feature_names]


def warm() -> None:
    """Train the model now; for `init`, so that the first prediction does not wait for it."""
    _model()


def features() -> list[str]:
    """Return what the four features are, in order."""
    return _model()[2]


def predict(features: list[float]) -> dict[str, Any]:
    """Return the species of one iris, given its four measures in centimetres, and how sure the model is of each."""
    model, species, names = _model()
    if len(features) != len(names):
        raise ValueError(f"predict takes {len(names)} numbers ({', '.join(names)}), found {len(features)}")
    probabilities = model.predict_proba([features])[0]
    return {
        "species": species[int(probabilities.argmax())],
        "probabilities": dict(zip(species, probabilities.round(4), strict=True)),
    }


def predict_many(rows: list[list[float]]) -> list[str]:
    """Return the species of many irises at once."""
    model, species, _ = _model()
    return [species[index] for index in model.predict(rows)]
