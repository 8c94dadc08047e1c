"""The softmax head: multinomial logistic regression on standardised features, trained with Keras.

softmax   trains one head, or many side by side
choice    finds the strength of the L2 penalty by pictures that were not learnt from
history   watches heads while they are trained, by the same pictures
"""

from retrain.head.choice import STRENGTHS, Fitted, Sweep, fit_best, out_of_fold
from retrain.head.history import History
from retrain.head.softmax import Head, fit, fit_each, learning_rate, plain, step_count, train_many

__all__ = [
    "STRENGTHS", "Fitted", "Head", "History", "Sweep", "fit", "fit_best", "fit_each", "learning_rate", "out_of_fold",
    "plain", "step_count", "train_many",
]  # fmt: skip
