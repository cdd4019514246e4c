"""Models of text: counted words are compiled where a linear model follows, and answer texts that nobody has seen."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.compose import make_column_transformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.compiler import NotCompiled, compile_model
from service.runtimes import RUNTIMES, Policy, Runtime, Source
from service.signature import Feature, Output, Signature
from service.table import Table, table_from_rows
from tests.compiler.fitted import assert_alike

WORDS = (
    "a lovely great superb charming fine awful dreadful poor dull broken thing indeed Café über don't the 42".split()
)
SIGNS = [" ", "  ", ", ", "! ", "\n", "-"]


def texts(n_rows: int, seed: int) -> list[str]:
    """Sentences of known words, some of them in capitals, and some of a word that no model has learnt."""
    chance = random.Random(seed)
    made = []
    for _ in range(n_rows):
        words = chance.choices([*WORDS, "unheard"], k=chance.randrange(12))
        made.append("".join(chance.choice([word, word.upper()]) + chance.choice(SIGNS) for word in words))
    return made


def frame(n_rows: int, seed: int) -> Any:
    """Texts beside numbers."""
    return pandas.DataFrame({"review": texts(n_rows, seed), "stars": np.arange(n_rows) % 7 / 2})


def target(rows: Any) -> Any:
    """Three opinions."""
    return rows.review.str.len() % 3


def runtimes(model: Any, rows: Any) -> tuple[Signature, Runtime, Any]:
    """The signature of a model of these columns, and its original."""
    dtypes = {"review": "string", "stars": "float64"}
    features = tuple(Feature(name=name, dtype=dtypes[name]) for name in rows.columns)
    classes = tuple(model.classes_.tolist()) if hasattr(model, "predict_proba") else None
    signature = Signature(features=features, outputs=(Output(name="y", dtype="int64", classes=classes),))
    original = RUNTIMES["joblib"].bind(model, signature, "frame" if len(features) > 1 else "column")
    return signature, original, rows.to_dict("records")


def table_of(signature: Signature, rows: Any) -> Table:
    return table_from_rows(signature, rows.to_dict("records"))


ONE = ["review"]
BOTH = ["review", "stars"]
MODELS: dict[str, tuple[Any, list[str]]] = {
    "counts": (make_pipeline(CountVectorizer(), LogisticRegression()), ONE),
    "present or not": (make_pipeline(CountVectorizer(binary=True), SGDClassifier(loss="log_loss")), ONE),
    "capitals count": (make_pipeline(CountVectorizer(lowercase=False, max_features=9), LogisticRegression()), ONE),
    "weights": (make_pipeline(TfidfVectorizer(), LogisticRegression()), ONE),
    "pairs and triples": (make_pipeline(TfidfVectorizer(ngram_range=(2, 3), norm="l1"), LogisticRegression()), ONE),
    "logarithms": (make_pipeline(TfidfVectorizer(sublinear_tf=True, stop_words="english"), LogisticRegression()), ONE),
    "no norm, no weights": (make_pipeline(TfidfVectorizer(norm=None, use_idf=False), LinearRegression()), ONE),
    "other words": (make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression()), ONE),
    "in two steps": (make_pipeline(CountVectorizer(), TfidfTransformer(), MultinomialNB()), ONE),
    "two classes": (make_pipeline(CountVectorizer(), MultinomialNB()), ONE),
    "meanings": (make_pipeline(TfidfVectorizer(), TruncatedSVD(5, random_state=0), RandomForestClassifier(5)), ONE),
    "beside numbers": (
        make_pipeline(
            make_column_transformer((TfidfVectorizer(), "review"), (StandardScaler(), ["stars"])), LogisticRegression()
        ),
        BOTH,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_text_models_answer_fresh_texts_as_the_original(name: str) -> None:
    """A compiled model of texts answers texts that neither it nor the proof has seen as the original does."""
    model, columns = MODELS[name]
    rows = frame(150, seed=1)
    wanted = target(rows) > 0 if name == "two classes" else target(rows)
    model.fit(rows.review if columns == ONE else rows, wanted)
    rows = rows[columns]
    signature, original, values = runtimes(model, rows)
    compiled = compile_model(model, original, signature, table_of(signature, rows), values)
    module = RUNTIMES[compiled.runtime]
    opened = module.bind(module.load(io.BytesIO(compiled.content), Source("it/1"), Policy()).model, signature, "table")
    unseen = table_of(signature, frame(300, seed=2)[columns])
    asked = signature.has_probabilities
    assert_alike(original.predict(unseen, asked), opened.predict(unseen, asked))


def shout(text: str) -> list[str]:
    """A tokenizer of one's own."""
    return text.upper().split()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "letters": (lambda: make_pipeline(CountVectorizer(analyzer="char"), LogisticRegression()), "cuts texts"),
    "a tokenizer": (
        lambda: make_pipeline(CountVectorizer(tokenizer=shout, token_pattern=None), LogisticRegression()),
        "cuts texts",
    ),
    "no accents": (lambda: make_pipeline(TfidfVectorizer(strip_accents="ascii"), LogisticRegression()), "cuts texts"),
    "hashes": (lambda: make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()), "HashingVectorizer"),
    "a forest": (lambda: make_pipeline(CountVectorizer(), RandomForestClassifier(3)), "where a linear model follows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_text_models_without_a_compiled_form_say_why(name: str) -> None:
    """What cuts texts in its own way, or needs all words at once as a matrix, is refused with the reason."""
    make, reason = REFUSED[name]
    rows = frame(60, seed=1)
    model = make().fit(rows.review, target(rows))
    signature, original, values = runtimes(model, rows[ONE])
    with pytest.raises(NotCompiled, match=reason):
        compile_model(model, original, signature, table_of(signature, rows[ONE]), values)
