"""The example functions, in real workers: a model trained on the data set that scikit-learn ships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from regrow.protocol.errors import ExecutionError
from tests.actors.workers.conftest import RunningPool

EXAMPLES = Path(__file__).parents[3] / "priv" / "python"
SETOSA = [5.1, 3.5, 1.4, 0.2]
VIRGINICA = [6.3, 3.3, 6.0, 2.5]

pytestmark = pytest.mark.slow


@pytest.fixture
def models(pool: Callable[..., RunningPool]) -> RunningPool:
    return pool(path=[EXAMPLES], functions=["ml_models:*"])


def test_a_prediction_names_the_species_and_how_sure_the_model_is(models: RunningPool) -> None:
    prediction = models.call("ml_models:predict", SETOSA)
    assert prediction["species"] == "setosa"
    assert sum(prediction["probabilities"].values()) == pytest.approx(1.0, abs=0.001)
    assert models.call("ml_models:predict", VIRGINICA)["species"] == "virginica"


def test_many_irises_are_told_apart_at_once(models: RunningPool) -> None:
    assert models.call("ml_models:predict_many", [SETOSA, VIRGINICA]) == ["setosa", "virginica"]


def test_the_wrong_number_of_features_is_told_with_their_names(models: RunningPool) -> None:
    with pytest.raises(ExecutionError, match="predict takes 4 numbers .*petal width.*, found 1"):
        models.call("ml_models:predict", [5.1])


def test_init_trains_before_the_first_call(pool: Callable[..., RunningPool]) -> None:
    running = pool(path=[EXAMPLES], functions=["ml_models:*"], init="ml_models:warm")
    assert running.call("ml_models:predict", SETOSA)["species"] == "setosa"
