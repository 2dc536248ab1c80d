"""Figure 5 and Table 5: accuracy of small classifiers on frozen features."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dove.data.progress_bar import ProgressBar
from dove.errors import UserError
from dove.evaluation.common import Subject, choose_policies
from dove.evaluation.datasets import LabelledImages, require_learnable
from dove.evaluation.feature_cache import (
    LATENTS,
    PATCHES,
    PATCHES_A_SIDE,
    TOKENS,
    FeatureCache,
    FeatureSource,
    PooledFeatures,
)
from dove.protocol import Layered

HIDDEN = 512  # Units of the MLP's one hidden layer
EPOCHS = 200
"""Greatest number of epochs; training stops after 10 epochs without a better accuracy on its validation images."""
STRENGTHS = tuple(10.0**power for power in range(-5, 2))
"""Values of C (the inverse of the L2 penalty's weight) that a linear probe chooses from."""
ITERATIONS = 1000  # Greatest number of iterations of the linear probe's solver
ALL = "all"

Fit = Callable[["Problem", int], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Problem:
    """Features with classes, numbered in the order of the training images' sorted names."""

    train: Float[np.ndarray, "n F"]
    train_classes: Int[np.ndarray, " n"]
    test: Float[np.ndarray, "m F"]
    test_classes: Int[np.ndarray, " m"]


def fit_mlp(problem: Problem, seed: int) -> dict[str, Any]:
    """Train an MLP with one hidden layer on standardised features; it stops early by a part of the training images.

    Returns:
        ``top1`` in percent of the test images, ``top1_stderr`` and ``epochs``.
    """
    network = MLPClassifier(
        (HIDDEN,),
        alpha=1e-3,
        early_stopping=True,
        validation_fraction=validation_images(problem.train_classes, 0.1) / len(problem.train),
        max_iter=EPOCHS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `epochs` in the report says it
        model = make_pipeline(StandardScaler(), network).fit(problem.train, problem.train_classes)
    return score(model.predict(problem.test), problem.test_classes) | {"epochs": network.n_iter_}


def fit_linear(problem: Problem, seed: int) -> dict[str, Any]:
    """Train one linear layer with softmax on standardised features.

    The strength C of its L2 penalty is the one that does best on a stratified fifth of the training images, after
    training on the rest; the layer is then trained on all of them. Of equals the smallest C is taken.

    Returns:
        ``top1`` in percent of the test images, ``top1_stderr``, ``val_top1`` of the fifth, ``C`` and whether the solver
        ``converged``.
    """
    fitted, held_out, classes, held_out_classes = train_test_split(
        problem.train,
        problem.train_classes,
        test_size=validation_images(problem.train_classes, 0.2),
        stratify=problem.train_classes,
        random_state=seed,
    )
    scaler = StandardScaler().fit(fitted)
    scaled, scaled_held_out = scaler.transform(fitted), scaler.transform(held_out)
    probe = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    accuracies: dict[float, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` in the report says it
        for strength in STRENGTHS:
            probe.set_params(C=strength).fit(scaled, classes)
            accuracies[strength] = score(probe.predict(scaled_held_out), held_out_classes)["top1"]
        best = max(accuracies, key=lambda strength: accuracies[strength])
        probe = LogisticRegression(C=best, max_iter=ITERATIONS)
        model = make_pipeline(StandardScaler(), probe).fit(problem.train, problem.train_classes)
    return score(model.predict(problem.test), problem.test_classes) | {
        "val_top1": accuracies[best],
        "C": best,
        "converged": bool(probe.n_iter_.max() < ITERATIONS),
    }


FITS: dict[str, Fit] = {"mlp": fit_mlp, "linear": fit_linear}


def validation_images(classes: Int[np.ndarray, " n"], share: float) -> int:
    """Compute the number of validation images: about this share, but at least one for each class, and at most half."""
    return min(len(classes) // 2, max(len(np.unique(classes)), round(share * len(classes))))


def score(predicted: Int[np.ndarray, " n"], true: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Compute the accuracy in percent, with its standard error for this number of images."""
    accuracy = float(np.mean(predicted == true))
    error = math.sqrt(accuracy * (1 - accuracy) / len(true))
    return {"top1": 100 * accuracy, "top1_stderr": 100 * error}


def feature_sources(
    subject: Subject, kind: str, num_tokens: Sequence[str] = (), layers: Sequence[str] = ()
) -> list[FeatureSource]:
    """Choose the features of a model to probe.

    Kind "mlp" probes tokens, by default at powers of two and auto. "linear" probes layers: numbers from 1, by default all,
    "latents", "patches" of raw pixels, or "tokens", by default all of them; of models without layers, tokens alone.
    """
    model = subject.tokenizer
    lengths = num_tokens if num_tokens or kind == "mlp" else [str(model.max_tokens)]
    tokens = [FeatureSource(TOKENS, str(policy)) for policy in choose_policies(subject, lengths)]
    if kind == "mlp" or not isinstance(model, Layered):
        return tokens
    depth = model.num_layers
    found: list[FeatureSource] = []
    for layer in layers or [ALL]:
        if layer == ALL:
            found += map(FeatureSource, range(1, depth + 1))
        elif layer == TOKENS:
            found += tokens
        elif layer == PATCHES and model.image_size % PATCHES_A_SIDE == 0:
            found.append(FeatureSource(PATCHES))
        elif layer == LATENTS or (layer.isdecimal() and 1 <= int(layer) <= depth):
            found.append(FeatureSource(int(layer) if layer.isdecimal() else layer))
        else:
            raise UserError(
                f"--layer {layer}: {subject.name} has layers 1 to {depth}, {LATENTS}, {TOKENS} and {PATCHES}; or pass all"
            )
    return list(dict.fromkeys(found))


def make_problem(
    train: LabelledImages, test: LabelledImages, train_features: PooledFeatures, test_features: PooledFeatures
) -> Problem:
    """Join features with classes."""
    learned = [train.classes[key] for key in train_features.keys]
    asked = [test.classes[key] for key in test_features.keys]
    require_learnable(learned)
    names, numbers = np.unique(learned, return_inverse=True)
    if lost := sorted(set(asked) - set(names.tolist())):
        raise UserError(f"train: no image of class {lost[0]!r} is readable; replace them")
    return Problem(train_features.values, numbers, test_features.values, np.searchsorted(names, asked))


def evaluate_probe(
    subject: Subject,
    sources: Sequence[FeatureSource],
    train: LabelledImages,
    test: LabelledImages,
    *,
    kind: str,
    batch_size: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Probe each of some features of a model by the classifier of that kind; one row for each."""
    train_features = FeatureCache(subject, train.images, batch_size).collect(sources, "train")
    test_features = FeatureCache(subject, test.images, batch_size).collect(sources, "test")
    rows = []
    for source in ProgressBar(sources, desc=f"{subject.name}: {kind} probes", unit="probe"):
        problem = make_problem(train, test, train_features[source], test_features[source])
        length = source.num_tokens
        rows.append(
            {
                "model": subject.name,
                "dataset": test.name,
                "num_tokens": int(length) if length is not None and length.isdecimal() else length,
                "layer": source.layer,
                **FITS[kind](problem, seed),
                "mean_length": None if length is None else float(test_features[source].lengths.mean()),
                "n_train": len(problem.train),
                "n_test": len(problem.test),
                "classes": len(np.unique(problem.train_classes)),
                "features": problem.train.shape[1],
            }
        )
    return rows


def best_layers(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Find for each model the layer with the best accuracy on its validation images, and that layer's test accuracy.

    The layer with the best test accuracy, which overstates, stands beside it for comparison with tables that choose so. Hidden
    layers alone compete where there are any. Of equals the first is taken.
    """
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        own = [row for row in own if isinstance(row["layer"], int)] or own
        chosen, luckiest = (max(own, key=lambda row: row[name]) for name in ("val_top1", "top1"))
        best = {name: chosen[name] for name in ("model", "dataset", "layer", "val_top1", "top1")}
        found.append(best | {"best_on_test": {name: luckiest[name] for name in ("layer", "top1")}})
    return found


def majority_share(test: LabelledImages) -> float:
    """Compute the percentage of test images in the largest class: the accuracy of a classifier without features."""
    return 100 * max(Counter(test.classes.values()).values()) / len(test.classes)
