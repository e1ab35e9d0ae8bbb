"""Optimisers and learning-rate schedules, step by step the same as torch.optim's.

An optimiser is made for a model and updates its parameters in place from its gradients:

    optimizer.zero_grad(); model.backward(grad); optimizer.step(); schedule.step()
"""

from tinyconv.optim.optimizers import *
from tinyconv.optim.schedules import *
