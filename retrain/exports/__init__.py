"""A model in other formats, each compared with the model before it is kept.

formats     what there is: what is written, what reads it, how well it must agree
composed    backbones, heads, temperature and softmax as one Keras network
written     the network in the formats of TensorFlow, Keras, LiteRT and ONNX
zipped      zips without a time, of the model folder among them
runtimes    runs an export with nothing but its own runtime, in a process of its own
pictures    what is compared, and what an int8 network is calibrated on
proof       how far an export and the model agree
run         export: all of it, in place only when it is proved
"""

from retrain.exports.proof import Proof
from retrain.exports.run import Exported, export

__all__ = ["Exported", "Proof", "export"]
