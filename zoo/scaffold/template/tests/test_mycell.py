"""The cell satisfies the zoo's contract, and learns."""

import torch

import zoo
from zoo.testing import CellContract


class TestContract(CellContract):
    """The contract of a cell, for mycell and ms-mycell."""

    cell = "mycell"


def test_cell_learns_to_forecast_a_moving_bar():
    torch.manual_seed(0)
    frames = torch.zeros(1, 8, 1, 8, 8)
    for t in range(8):
        frames[0, t, 0, :, t] = 1
    model = zoo.create("mycell", hidden=8, layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = (model(frames[:, :-1], horizon=1) - frames[:, 1:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
