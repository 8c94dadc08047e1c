"""Fine-tuning: the layers of the backbone are trained, too, after the head.

tune         fine_tune: epoch after epoch, the best one kept, resumable
rates        find_rate: which learning rate to train with; page draws what it finds
trainer      a network and its optimizer, run over steps
network      backbone and head as one model; weights by name
depth        which layers are how deep
folded       convolution and batch norm in one step
optimizer    learning rates by depth and time
batches      what each step learns from
checkpoint   where a run stands
said         what people are told
"""

from retrain.finetune.checkpoint import Epoch
from retrain.finetune.network import put_back
from retrain.finetune.rates import RateCurve, find_rate
from retrain.finetune.tune import Tuned, check, epoch_count, fine_tune

__all__ = ["Epoch", "RateCurve", "Tuned", "check", "epoch_count", "find_rate", "fine_tune", "put_back"]
