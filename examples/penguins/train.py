"""Trains the demo model: which species of penguin is it? Run it in the repository's root:

python examples/penguins/train.py
flask pack penguins.joblib --sample examples/penguins/penguins.csv --target species --drop year
"""

from pathlib import Path

import joblib
import pandas
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
CATEGORIES = ["island", "sex"]


def train():
    """Fit the pipeline on the whole table. Nothing in it is random."""
    rows = pandas.read_csv(Path(__file__).with_name("penguins.csv"))
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), CATEGORIES),
    )
    model = make_pipeline(prepare, LogisticRegression(max_iter=1000))
    return model.fit(rows[NUMBERS + CATEGORIES], rows["species"])


if __name__ == "__main__":
    joblib.dump(train(), "penguins.joblib")
    print("wrote penguins.joblib")
