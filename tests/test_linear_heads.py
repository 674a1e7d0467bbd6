"""Solved heads agree with the normal equations, plain loops and scikit-learn."""

import numpy as np
import pytest

from jaxvision.linear_heads import fit_logistic, fit_ridge, ridge_scores
from jaxvision.metrics import negative_log_likelihood

SHARES = np.geomspace(1e-2, 1, 3)


def draw(count, width, seed=0):
    """Features `[count, width]` of three classes that overlap, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = rng.normal(size=(count, width)) + 0.7 * np.eye(3, width)[labels] + 2
    return features, labels


def solve(features, targets, penalty):
    """Ridge regression by the normal equations: kernel and bias."""
    mean, base = features.mean(0), targets.mean(0)
    x, y = features - mean, targets - base
    kernel = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return kernel, base - mean @ kernel


@pytest.fixture(params=[(40, 7), (30, 50)], ids=["tall", "wide"])
def drawn(request):
    return draw(*request.param)


def test_ridge_solves_the_normal_equations(drawn):
    features, labels = drawn
    head = fit_ridge(features, labels, 3, shares=SHARES)
    kernel, bias = solve(features, np.eye(3)[labels], head.penalty)
    factor = head.kernel[0, 0] / kernel[0, 0]
    np.testing.assert_allclose(head.kernel, kernel * factor, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(head.bias, bias * factor, rtol=1e-9)


@pytest.mark.parametrize("each", [1, 2, 10])
def test_left_out_rows_are_those_of_a_loop(drawn, each):
    """Also where blocks are of several sizes."""
    features, labels = drawn
    blocks = np.random.default_rng(1).permutation(np.arange(len(labels)) // each)
    blocks[:3] = blocks[0]
    targets = np.eye(3)[labels]
    scale = np.square(features - features.mean(0)).sum() / len(features)
    found = ridge_scores(features, labels, 3, blocks=blocks, share=0.2)
    for block in np.unique(blocks):
        out = blocks == block
        kernel, bias = solve(features[~out], targets[~out], 0.2 * scale)
        np.testing.assert_allclose(
            found[out], features[out] @ kernel + bias, rtol=1e-7, atol=1e-9
        )


def test_ridge_takes_the_penalty_that_scikit_learn_takes(drawn):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = drawn
    scale = np.square(features - features.mean(0)).sum() / len(features)
    head = fit_ridge(features, labels, 3, shares=SHARES)
    theirs = linear_model.RidgeCV(alphas=SHARES * scale).fit(
        features, np.eye(3)[labels]
    )
    assert head.penalty == pytest.approx(theirs.alpha_)
    ours = features @ head.kernel + head.bias
    np.testing.assert_array_equal(ours.argmax(1), theirs.predict(features).argmax(1))


def test_ridge_is_as_sure_as_left_out_images_allow():
    features, labels = draw(120, 20)
    left_out = fit_ridge(features + np.eye(3, 20)[labels], labels, 3).held_out
    loss = negative_log_likelihood(left_out, labels)
    for factor in (0.5, 0.8, 1.25, 2):
        assert loss < negative_log_likelihood(left_out * factor, labels)


def test_logistic_regression_is_scikit_learns(drawn):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = drawn
    head = fit_logistic(features, labels, 3, fold=np.arange(len(labels)) // 3 % 5)
    theirs = linear_model.LogisticRegression(
        C=1 / head.penalty, tol=1e-8, max_iter=10_000
    ).fit(features, labels)
    np.testing.assert_allclose(head.kernel, theirs.coef_.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        head.bias - head.bias.mean(),
        theirs.intercept_ - theirs.intercept_.mean(),
        rtol=1e-3,
        atol=1e-3,
    )


def test_logistic_regression_compares_penalties_on_left_out_folds(drawn):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = drawn
    fold = np.arange(len(labels)) // 3 % 3
    head = fit_logistic(features, labels, 3, fold=fold, shares=SHARES)
    for number in range(3):
        out = fold == number
        theirs = linear_model.LogisticRegression(
            C=1 / head.penalty, tol=1e-8, max_iter=10_000
        ).fit(features[~out], labels[~out])
        wanted = features[out] @ theirs.coef_.T + theirs.intercept_
        wanted -= wanted.mean(1, keepdims=True)
        found = head.held_out[out] - head.held_out[out].mean(1, keepdims=True)
        np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=2e-3)
    scale = np.square(features - features.mean(0)).sum() / len(features)
    losses = [
        negative_log_likelihood(
            fit_logistic(
                features, labels, 3, fold=fold, shares=np.array([share])
            ).held_out,
            labels,
        )
        for share in SHARES
    ]
    assert head.penalty == pytest.approx(scale * SHARES[int(np.argmin(losses))])


@pytest.mark.parametrize("count", [2, 3])
def test_few_or_equal_images_give_finite_heads(count):
    features, labels = np.ones((count, 4), np.float32), np.arange(count) % 2
    for head in (
        fit_ridge(features, labels, 2),
        fit_logistic(features, labels, 2, fold=np.arange(count)),
    ):
        assert np.isfinite(head.kernel).all()
        assert np.isfinite(head.bias).all()
