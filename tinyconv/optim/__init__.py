"""Optimisers and learning-rate schedules, the same as torch.optim's in each step.

An optimiser belongs to a model and updates its parameters in place from its gradients:

    optimizer.zero_grad(); model.backward(grad); optimizer.step(); schedule.step()
"""

from tinyconv.optim.optimizers import *
from tinyconv.optim.schedules import *
