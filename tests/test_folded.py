"""Convolution and batch norm in one step: the same function, the same gradients."""

from typing import Any

import numpy as np
import pytest

from retrain.devices import dtype_policy, start
from retrain.finetune.folded import folded

SIDE = 9


def with_norm(convolve: Any, **norm: Any) -> Any:
    """A network of a convolution, batch norm and what comes after them."""
    import keras

    pixels = keras.Input((SIDE, SIDE, 4))
    normalised = keras.layers.BatchNormalization(epsilon=1e-3, **norm)(convolve(pixels))
    return keras.Model(pixels, keras.layers.Conv2D(3, 1)(keras.layers.ReLU(6)(normalised)))


def plain() -> Any:
    import keras

    return with_norm(keras.layers.Conv2D(6, 3, 2, "same", use_bias=False))


def biased() -> Any:
    import keras

    return with_norm(keras.layers.Conv2D(6, 3, padding="valid", dilation_rate=2))


def depthwise() -> Any:
    import keras

    return with_norm(keras.layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=3, use_bias=False))


def bare() -> Any:
    import keras

    return with_norm(keras.layers.DepthwiseConv2D(3), center=False, scale=False)


def nested() -> Any:
    import keras

    pixels = keras.Input((SIDE, SIDE, 4))
    return keras.Model(pixels, plain()(plain_to_four()(pixels)))


def plain_to_four() -> Any:
    import keras

    pixels = keras.Input((SIDE, SIDE, 4))
    return keras.Model(pixels, keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(pixels)))


def with_sequential() -> Any:
    import keras

    pixels = keras.Input((SIDE, SIDE, 4))
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(epsilon=0.1), keras.layers.ReLU()]
    return keras.Model(pixels, keras.Sequential(layers)(pixels))


def called_twice() -> Any:
    """A network within the network, and a batch norm, that are each used for two things."""
    import keras

    pixels = keras.Input((SIDE, SIDE, 4))
    inner, convolution, norm = plain_to_four(), keras.layers.Conv2D(4, 1), keras.layers.BatchNormalization()
    x = keras.layers.Add()([inner(pixels), inner(keras.layers.ReLU()(pixels))])
    return keras.Model(pixels, keras.layers.Add()([norm(convolution(x)), norm(convolution(pixels))]))


def used_twice() -> Any:
    """What is convolved goes to a sum, too, so that it is needed as it is."""
    import keras

    pixels = keras.Input((SIDE, SIDE, 4))
    convolved = keras.layers.Conv2D(5, 1)(pixels)
    return keras.Model(pixels, keras.layers.Add()([convolved, keras.layers.BatchNormalization()(convolved)]))


def randomised(model: Any) -> Any:
    rng = np.random.default_rng(0)
    for variable in model.weights:
        low = 0.5 if "variance" in variable.name or "gamma" in variable.name else -1.0
        variable.assign(rng.uniform(low, 1.5, variable.shape))
    return model


def norms(model: Any) -> int:
    import keras

    within = sum(norms(layer) for layer in model.layers if isinstance(layer, keras.Model))
    return within + sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def outputs_and_gradients(model: Any, variables: Any, pixels: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    tf = start()
    with tf.GradientTape() as tape:
        outputs = model(pixels, training=False)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")))
    return np.asarray(outputs), [np.asarray(one) for one in tape.gradient(loss, [one.value for one in variables])]


@pytest.mark.parametrize("make", [plain, biased, depthwise, bare, nested, used_twice, with_sequential, called_twice])
def test_outputs_and_gradients_of_all_weights_are_those_of_two_layers(make: Any) -> None:
    start()
    model = randomised(make())
    one = folded(model)
    assert norms(model) > 0 == norms(one)
    assert {id(variable) for variable in one.trainable_variables} <= {id(variable) for variable in model.variables}
    pixels = np.random.default_rng(1).normal(size=(2, SIDE, SIDE, 4)).astype(np.float32)
    (expected, slopes), (found, of_one) = (
        outputs_and_gradients(this, model.trainable_variables, pixels) for this in (model, one)
    )
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for slope, other in zip(slopes, of_one, strict=True):
        assert np.abs(slope).max() > 1e-3
        np.testing.assert_allclose(other, slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())


def test_a_network_of_networks_without_a_graph_stays() -> None:
    start()
    import keras

    unbuilt = keras.Sequential([keras.layers.Conv2D(4, 1), keras.layers.BatchNormalization()])
    assert folded(unbuilt) is unbuilt


def test_weights_that_change_later_count() -> None:
    start()
    model = randomised(plain())
    one = folded(model)
    for variable in model.weights:
        variable.assign(variable.numpy() * 0.5)
    pixels = np.ones((1, SIDE, SIDE, 4), np.float32)
    np.testing.assert_allclose(one(pixels, training=False), model(pixels, training=False), rtol=1e-5, atol=1e-5)


def test_in_half_precision_the_factor_meets_the_kernel_in_whole() -> None:
    start()
    with dtype_policy("mixed_float16"):
        half = plain()
    whole = plain()
    for model in (half, whole):
        randomised(model)
    pixels = np.random.default_rng(1).normal(size=(2, SIDE, SIDE, 4)).astype(np.float32)
    one = folded(half)
    found = one(pixels, training=False)
    assert norms(one) == 0 and found.dtype == "float16"
    np.testing.assert_allclose(np.asarray(found, np.float32), whole(pixels, training=False), rtol=0.01, atol=0.02)


def test_what_cannot_take_on_a_factor_stays() -> None:
    start()
    import keras

    def grouped(x: Any) -> Any:
        return keras.layers.Conv2D(8, 1, groups=2)(x)

    def bent(x: Any) -> Any:
        return keras.layers.Conv2D(6, 1, activation="relu")(x)

    def scaled(x: Any) -> Any:
        return keras.layers.Rescaling(2.0)(x)

    pixels = np.random.default_rng(1).normal(size=(2, SIDE, SIDE, 4)).astype(np.float32)
    for convolve, axis in ((grouped, -1), (bent, -1), (scaled, -1), (keras.layers.Conv2D(6, 1), 1)):
        model = randomised(with_norm(convolve, axis=axis))
        one = folded(model)
        assert norms(one) == norms(model) == 1
        np.testing.assert_allclose(one(pixels, training=False), model(pixels, training=False), rtol=1e-5, atol=1e-5)
