"""Explain what a model says of one picture: heat maps, words, guided backprop.

explained  the maps and facts behind the labels of one picture
words      the same in sentences
panel      the picture with its maps, side by side, with a legend
guided     guided backprop, which needs TensorFlow
"""

from retrain.explain.explained import Explained, Explainer, Map

__all__ = ["Explained", "Explainer", "Map"]
