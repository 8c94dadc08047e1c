"""Convolution and batch norm in one step, with weights of both that learn.

While batch norm works with a fixed mean and variance it is a factor and a summand for each channel, which the convolution
before it can take on: in place of two more passes over every map, and three on the way back, the factor meets the kernel.
The function is the same, and so are the gradients of all weights, but for rounding. Jacob et al., "Quantization and training
of neural networks for efficient integer-arithmetic-only inference", CVPR 2018, fold so while they train.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from retrain.devices import start

if TYPE_CHECKING:
    import keras


def folded(model: "keras.Model") -> "keras.Model":
    """Return a model that does the same with the same variables, for use with training=False.

    Networks within the network are folded, too; what is no graph of layers, or cannot be taken apart, stays as it is.
    """
    start()
    return _folded(model, {})


def _folded(model: "keras.Model", made: dict[Any, Any]) -> "keras.Model":
    """`made`: what stands for a network, or for a convolution with its batch norm, so that what is used twice stays one."""
    import keras

    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs)
    if isinstance(model, keras.Sequential) or not hasattr(model, "operations"):
        return model
    convolved: dict[int, tuple[Any, Any, Any]] = {}  # of an output, by identity: itself, the layer and its input

    def once(key: Any, make: Callable[[], Any]) -> Any:
        if key not in made:
            made[key] = make()
        return made[key]

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model):
            return once(id(layer), lambda: _folded(layer, made))(*inputs, **options)
        if type(layer) is keras.layers.BatchNormalization and id(inputs[0]) in convolved:
            _, convolution, x = convolved[id(inputs[0])]
            if _is_last(layer.axis, len(x.shape)):
                return once((id(convolution), id(layer)), lambda: _step(convolution, layer))(x)
        output = layer(*inputs, **options)
        if _can_take_on(layer):
            convolved[id(output)] = (output, layer, inputs[0])  # still computed, where it is of use to others
        return output

    try:
        return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    except ValueError:  # in a graph of an unusual kind; it is slower, and no worse
        return model


def _can_take_on(layer: Any) -> bool:
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return (
        type(layer) in kinds and getattr(layer, "groups", 1) == 1 and layer.data_format == "channels_last"
        and layer.activation is keras.activations.linear
    )  # fmt: skip


def _is_last(axis: int, dimensions: int) -> bool:
    return axis in (-1, dimensions - 1)


def _step(convolution: Any, norm: Any) -> "keras.Layer":
    tf = start()
    import keras
    from keras import ops

    class Step(keras.layers.Layer):
        """(n, height, width, channels) to (n, height, width, filters), in the number format of the convolution."""

        def __init__(self) -> None:
            # The factor is not rounded to half precision before it has met the kernel.
            super().__init__(name=f"{convolution.name}_{norm.name}", dtype=convolution.dtype_policy, autocast=False)
            self.built = True

        def call(self, x: Any) -> Any:
            factor = ops.rsqrt(norm.moving_variance + norm.epsilon)
            if norm.scale:
                factor = factor * norm.gamma
            mean = norm.moving_mean - convolution.bias if convolution.use_bias else norm.moving_mean
            summand = norm.beta - mean * factor if norm.center else -mean * factor
            kernel = ops.convert_to_tensor(convolution.kernel)
            depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
            kernel = kernel * (ops.reshape(factor, kernel.shape[2:]) if depthwise else factor)
            convolve = ops.depthwise_conv if depthwise else ops.conv
            x, kernel, summand = (ops.cast(one, self.compute_dtype) for one in (x, kernel, summand))
            y = convolve(
                x, kernel, strides=convolution.strides, padding=convolution.padding, data_format="channels_last",
                dilation_rate=convolution.dilation_rate,
            )  # fmt: skip
            return tf.nn.bias_add(y, summand)  # which TensorFlow computes together with the convolution, a sum it does not

        def compute_output_shape(self, shape: Any) -> Any:
            return convolution.compute_output_shape(shape)

    return Step()
