"""Trains the second demo model: what does a diamond cost? Run it in the repository's root:

python examples/diamonds/train.py
flask pack diamonds.joblib --sample examples/diamonds/diamonds.csv --target price
"""

from pathlib import Path

import joblib
import pandas
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

ORDERED = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": ["J", "I", "H", "G", "F", "E", "D"],
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}
NUMBERS = ["carat", "depth", "table", "x", "y", "z"]


def train():
    """Fit gradient boosting on the sample, with the grades as ordered numbers."""
    rows = pandas.read_csv(Path(__file__).with_name("diamonds.csv"))
    prepare = make_column_transformer(
        (OrdinalEncoder(categories=list(ORDERED.values())), list(ORDERED)), ("passthrough", NUMBERS)
    )
    model = make_pipeline(prepare, HistGradientBoostingRegressor(max_iter=100, random_state=0))
    return model.fit(rows[[*ORDERED, *NUMBERS]], rows["price"])


if __name__ == "__main__":
    joblib.dump(train(), "diamonds.joblib")
    print("wrote diamonds.joblib")
