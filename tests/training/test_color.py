"""PCA color augmentation against its definition."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_runs import NORMALIZE, SHAPE, RandomBatches, small_model

from jaxvision.errors import InputError
from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.training.color import (
    ColorComponents,
    color_components,
    make_color_augment,
)
from jaxvision.training.parallel import jit_step
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import make_train_step

COMPONENTS = ColorComponents(
    mean=(0.0, 0.0, 0.0),
    eigenvalues=(3.0, 0.5, 0.1),
    eigenvectors=((0.6, 0.8, 0.0), (-0.8, 0.6, 0.0), (0.0, 0.0, 1.0)),
)


def colored(count=7):
    """Images of several sizes with correlated channels, far from zero."""
    rng = np.random.default_rng(0)
    mixing = np.array([[20.0, 18, 15], [0, 6, 3], [0, 0, 2]])
    for i in range(count):
        values = rng.normal(size=(5 + i, 6, 3)) @ mixing
        yield (np.array([130, 120, 100]) + values).clip(0, 255).astype(np.uint8)


def test_components_are_those_of_all_pixels_together():
    pixels = np.concatenate([p.reshape(-1, 3) for p in colored()]).astype(float)
    components = color_components(colored())  # an iterator: one pass is enough
    np.testing.assert_allclose(components.mean, pixels.mean(0))
    covariance = np.cov(pixels.T, bias=True)
    values, vectors = components.eigenvalues, np.array(components.eigenvectors)
    assert list(values) == sorted(values, reverse=True)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(
        vectors.T @ np.diag(values) @ vectors, covariance, rtol=1e-9
    )


def test_images_of_one_color_have_no_components():
    components = color_components(np.full((2, 4, 4, 3), 77, np.uint8))
    assert components.eigenvalues == (0.0, 0.0, 0.0)


def test_gray_images_are_refused():
    with pytest.raises(InputError, match=r"`augment.pca_color`: needs colors"):
        color_components([np.zeros((4, 4, 1), np.uint8)])


def test_what_is_added_has_the_papers_distribution():
    augment = jax.jit(make_color_augment(COMPONENTS, 0.1))
    images = jnp.ones((4000, 2, 3, 3))
    added = np.asarray(augment(jax.random.key(0), images) - images)
    # One color over the whole of each image.
    np.testing.assert_allclose(added, added[:, :1, :1] + np.zeros((2, 3, 1)), atol=1e-6)
    along = added[:, 0, 0] @ np.array(COMPONENTS.eigenvectors).T
    expected = 0.1 * np.array(COMPONENTS.eigenvalues)
    np.testing.assert_allclose(along.std(0), expected, rtol=0.05)
    np.testing.assert_allclose(along.mean(0) / expected, 0, atol=0.06)
    np.testing.assert_allclose(np.corrcoef(along.T), np.eye(3), atol=0.06)


def test_an_alpha_a_pixel():
    augment = make_color_augment(COMPONENTS, 0.1, per_pixel=True)
    images = jnp.zeros((2, 40, 50, 3))
    added = np.asarray(augment(jax.random.key(0), images))
    along = added.reshape(-1, 3) @ np.array(COMPONENTS.eigenvectors).T
    expected = 0.1 * np.array(COMPONENTS.eigenvalues)
    np.testing.assert_allclose(along.std(0), expected, rtol=0.05)


def test_the_training_step_draws_by_its_number_and_never_in_evaluation():
    model = small_model(batch_norm=False, dropout_rate=0.0)
    config = OptimConfig("sgd", 0.05)
    tx = make_optimizer(config, steps_per_epoch=3, epochs=1)
    state = create_state(init_variables(model, 0, SHAPE), tx, seed=0)
    batch = next(RandomBatches(num_examples=8, batch_size=8, train=True).iterate())
    augment = make_color_augment(COMPONENTS, 0.1)

    def after(state, augment):
        step = make_train_step(
            model, tx, make_cross_entropy(), normalize=NORMALIZE, augment=augment
        )
        copy = jax.tree.map(jnp.array, state)
        return jit_step(step)(copy, batch)

    one, two = after(state, augment), after(state, augment)
    chex.assert_trees_all_equal(one, two)
    assert float(one[1]["loss"]) != float(after(state, None)[1]["loss"])
    later = state.replace(step=state.step + 1)
    assert float(one[1]["loss"]) != float(after(later, augment)[1]["loss"])
