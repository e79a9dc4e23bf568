"""Trains a small classifier on the iris data that scikit-learn brings along, and saves it for
score.py.

Run by ``make serve`` once, or by hand: ``python train.py``. Writes ``models/iris/1/model.joblib``
beside this file. The folder above the file is what a deployment on Azure passes in
AZUREML_MODEL_DIR: models/NAME/VERSION.
"""

from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL = Path(__file__).resolve().parent / "models" / "iris" / "1" / "model.joblib"


def main():
    iris = load_iris()
    kinds = iris.target_names[iris.target]
    known, held_back, known_kinds, held_back_kinds = train_test_split(
        iris.data, kinds, test_size=0.2, random_state=0, stratify=kinds
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(known, known_kinds)
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, MODEL)
    share = model.score(held_back, held_back_kinds)
    print(f"Trained on {len(known)} flowers, right about {share:.0%} of {len(held_back)} others. Saved {MODEL}")


if __name__ == "__main__":
    main()
