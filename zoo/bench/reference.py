"""Plain implementations of some cells, to compare the zoo's with: as numbers and in speed.

They are the papers' equations, as one would first write them: one convolution per operand, no
options, and nothing to save time or memory. Each takes its weights from a cell of the zoo.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.cell import RecurrentCell, State, Step
from zoo.errors import ConfigError
from zoo.forecast import Forecaster
from zoo.warping import warp

__all__ = ["REFERENCES", "plain"]


class Operands(nn.Module):
    """W ∗ [a, b, …], computed as the sum of one convolution per operand, each with a bias.

    Args:
        joint: The convolution with W.
        channels: The channels of each operand.
    """

    def __init__(self, joint: nn.Conv2d, *channels: int) -> None:
        super().__init__()
        outputs, _, size, _ = joint.weight.shape
        self.convs = nn.ModuleList()
        for n, weight in enumerate(joint.weight.detach().split(channels, dim=1)):
            conv = nn.Conv2d(channels[n], outputs, size, padding=size // 2).to(weight)
            with torch.no_grad():
                conv.weight.copy_(weight)
                conv.bias.zero_()  # type: ignore[union-attr]
                if n == 0 and joint.bias is not None:
                    conv.bias.copy_(joint.bias)  # type: ignore[union-attr]
            self.convs.append(conv)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the sum of the convolutions."""
        first, *others = (conv(x) for conv, x in zip(self.convs, inputs, strict=True))
        return sum(others, start=first)


class PlainCell(RecurrentCell):
    """A cell with the weights and the initial state of a cell of the zoo."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell.in_channels, cell.channels)
        self.initial = cell.init_state

    def init_state(self, x: Tensor) -> State:
        """Return the state of the zoo's cell."""
        return self.initial(x)


class PlainConvLSTM(PlainCell):
    """ConvLSTM."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        self.gates = Operands(cell.gates, cell.in_channels, cell.channels)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Step:
        """Take one step."""
        h, c = state
        i, f, g, o = self.gates(x, h).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return Step(h, (h, c))


class PlainPredRNN(PlainCell):
    """PredRNN."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        channels = cell.channels
        self.gates = Operands(cell.gates, cell.in_channels, channels)
        self.memory_gates = Operands(cell.memory_gates, cell.in_channels, channels)
        self.output_gate = Operands(cell.output_gate, channels, channels)
        self.mix = Operands(cell.mix, 2 * channels)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], memory: Tensor) -> Step:
        """Take one step."""
        h, c = state
        m = memory
        i, f, g, o = self.gates(x, h).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        i, f, g = self.memory_gates(x, m).chunk(3, dim=1)
        m = torch.sigmoid(f) * m + torch.sigmoid(i) * torch.tanh(g)
        o = torch.sigmoid(o + self.output_gate(c, m))
        h = o * torch.tanh(self.mix(torch.cat([c, m], dim=1)))
        return Step(h, (h, c), memory=m)


class PlainMIM(PlainCell):
    """MIM."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        channels = cell.channels
        self.gates = Operands(cell.gates, cell.in_channels, channels)
        self.memory_gates = Operands(cell.memory_gates, cell.in_channels, channels)
        self.output_gate = Operands(cell.output_gate, channels, channels)
        self.mix = Operands(cell.mix, 2 * channels)
        self.cascade = cell.cascade
        if self.cascade:
            self.n_gates = Operands(cell.n_gates, channels, channels)
            self.n_output = Operands(cell.n_output, channels, channels)
            self.s_gates = Operands(cell.s_gates, channels, channels)
            self.s_output = Operands(cell.s_output, channels)

    def forward(self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor, below: Any) -> Step:
        """Take one step."""
        return self.advance(x, state, memory, below)[0]

    def advance(
        self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor, below: Any
    ) -> tuple[Step, Tensor]:
        """Take one step; also return the output gate."""
        h, c, *cascade = state
        m = memory
        if self.cascade:
            n, s = cascade
            difference = x - below
            i, f, g = self.n_gates(difference, n).chunk(3, dim=1)
            n = torch.sigmoid(f) * n + torch.sigmoid(i) * torch.tanh(g)
            d = torch.sigmoid(self.n_output(difference, n)) * torch.tanh(n)
            i, f, g, o = self.s_gates(d, c).chunk(4, dim=1)
            s = torch.sigmoid(f) * s + torch.sigmoid(i) * torch.tanh(g)
            t = torch.sigmoid(o + self.s_output(s)) * torch.tanh(s)
            cascade = [n, s]
            i, g, o = self.gates(x, h).chunk(3, dim=1)
        else:
            i, f, g, o = self.gates(x, h).chunk(4, dim=1)
            t = torch.sigmoid(f) * c
        c = t + torch.sigmoid(i) * torch.tanh(g)
        i, f, g = self.memory_gates(x, m).chunk(3, dim=1)
        m = torch.sigmoid(f) * m + torch.sigmoid(i) * torch.tanh(g)
        o = torch.sigmoid(o + self.output_gate(c, m))
        h = o * torch.tanh(self.mix(torch.cat([c, m], dim=1)))
        return Step(h, (h, c, *cascade), memory=m), o


class PlainMotionGRU(nn.Module):
    """The MotionGRU of MotionRNN, with one warp per field; height and width are even."""

    def __init__(self, motion: Any, channels: int) -> None:
        super().__init__()
        self.alpha, self.align_corners = motion.alpha, motion.align_corners
        narrow, flow = motion.encode.out_channels, motion.candidate.out_channels
        self.encode, self.mask, self.mix, self.decode = (
            deepcopy(part) for part in (motion.encode, motion.mask, motion.mix, motion.decode)
        )
        self.gates = Operands(motion.gates, narrow, flow)
        self.candidate = Operands(motion.candidate, narrow, flow)
        self.gate = Operands(motion.gate, channels, channels)

    def forward(self, h: Tensor, flow: Tensor, trend: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the moved features, the flow and the trend."""
        e = self.encode(h)
        u, r = self.gates(e, flow).chunk(2, dim=1)
        u, r = torch.sigmoid(u), torch.sigmoid(r)
        q = torch.tanh(self.candidate(e, r * flow))
        trend = trend + self.alpha * (flow - trend)
        flow = u * q + (1 - u) * flow + trend
        masks = torch.sigmoid(self.mask(e)).split(1, dim=1)
        fields = [field.unsqueeze(1) for field in flow.split(2, dim=1)]  # (B, 1, 2, h, w) each
        warped = [
            mask * warp(e, field, align_corners=self.align_corners)[:, 0]
            for mask, field in zip(masks, fields, strict=True)
        ]
        # The fields are the inner axis: (B, C/4, k², h, w) to (B, C/4·k², h, w).
        d = self.decode(self.mix(torch.stack(warped, dim=2).flatten(1, 2)))
        g = torch.sigmoid(self.gate(d, h))
        return g * h + (1 - g) * d, flow, trend


class PlainMotionRNN(PlainMIM):
    """MotionRNN."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        self.motion = cell.motion and PlainMotionGRU(cell.motion, cell.channels)

    def forward(self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor, below: Any) -> Step:
        """Take one step."""
        if self.motion is None:
            return super().forward(x, state, memory, below)
        flow, trend, *rest = state
        step, o = self.advance(x, tuple(rest), memory, below)
        moved, flow, trend = self.motion(step.output, flow, trend)
        h = moved + (1 - o) * x
        return Step(h, (flow, trend, h, *step.state[1:]), memory=step.memory)


class PlainMKLSTM(PlainCell):
    """MK-LSTM with two kernel sizes."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        first, second = (Operands(conv, cell.in_channels, cell.channels) for conv in cell.gates)
        self.gates_3, self.gates_5 = first, second
        self.output_3, self.output_5 = (Operands(conv, cell.channels) for conv in cell.output_gates)
        self.mix = Operands(cell.mix, 2 * cell.channels)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> Step:
        """Take one step."""
        h, c3, c5 = state
        i, f, g, o3 = self.gates_3(x, h).chunk(4, dim=1)
        c3 = torch.sigmoid(f) * c3 + torch.sigmoid(i) * torch.tanh(g)
        i, f, g, o5 = self.gates_5(x, h).chunk(4, dim=1)
        c5 = torch.sigmoid(f) * c5 + torch.sigmoid(i) * torch.tanh(g)
        o = torch.sigmoid(o3 + o5 + self.output_3(c3) + self.output_5(c5))
        h = o * torch.tanh(self.mix(torch.cat([c3, c5], dim=1)))
        return Step(h, (h, c3, c5))


class PlainMoDeRNN(PlainCell):
    """MoDeRNN, with one convolution per kernel size."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        self.iterations = cell.iterations
        self.look_at_h = deepcopy(cell.look_at_h.convs)
        self.look_at_x = deepcopy(cell.look_at_x.convs)
        self.gates = Operands(cell.gates, cell.in_channels, cell.channels)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Step:
        """Take one step."""
        h, c = state
        for turn in range(self.iterations):
            if turn % 2 == 0:
                mean = sum(conv(h) for conv in self.look_at_h) / len(self.look_at_h)
                x = 2 * torch.sigmoid(mean) * x
            else:
                mean = sum(conv(x) for conv in self.look_at_x) / len(self.look_at_x)
                h = 2 * torch.sigmoid(mean) * h
        i, f, g, o = self.gates(x, h).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return Step(h, (h, c))


class PlainAttention(nn.Module):
    """The attention of CMS-LSTM, one patch after the other, with all scores."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.scale, self.qkv = attention.scale, deepcopy(attention.qkv)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Return the attended h and c next to each other; the scale divides height and width."""
        rows = []
        for h_row, c_row in zip(*(x.chunk(self.scale, dim=2) for x in (h, c)), strict=True):
            patches = zip(*(x.chunk(self.scale, dim=3) for x in (h_row, c_row)), strict=True)
            both = [self._attend(torch.cat(pair, dim=3)).chunk(2, dim=3) for pair in patches]
            rows.append(torch.cat([*(h for h, _ in both), *(c for _, c in both)], dim=3))
        return torch.cat(rows, dim=2)

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).flatten(2).chunk(3, dim=1)  # (B, C, positions) each
        scores = torch.softmax(query.mT @ key, dim=-1)
        return (value @ scores.mT).view_as(x) + x


class PlainCMSLSTM(PlainCell):
    """CMS-LSTM."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        channels = cell.channels
        self.iterations = cell.iterations
        self.look_at_h = Operands(cell.look_at_h, channels)
        self.look_at_x = Operands(cell.look_at_x, cell.in_channels)
        self.gates = Operands(cell.gates, cell.in_channels, channels)
        self.attentions = nn.ModuleList(PlainAttention(part) for part in cell.attentions)
        self.combine = Operands(cell.combine, *[channels] * len(self.attentions))
        self.mix = Operands(cell.mix, channels, channels)
        self.expression = Operands(cell.expression, channels, channels)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Step:
        """Take one step."""
        h, c = state
        for turn in range(self.iterations):
            if turn % 2 == 0:
                x = 2 * torch.sigmoid(self.look_at_h(h)) * x
            else:
                h = 2 * torch.sigmoid(self.look_at_x(x)) * h
        i, f, g, o = self.gates(x, h).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        z = self.combine(*(attend(h, c) for attend in self.attentions))
        i, g, o = self.expression(self.mix(*z.chunk(2, dim=3)), h).chunk(3, dim=1)
        i = torch.sigmoid(i)
        c = (1 - i) * c + i * torch.tanh(g)
        h = torch.sigmoid(o) * c
        return Step(h, (h, c))


class PlainTrajGRU(PlainCell):
    """TrajGRU, with one warp per link."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell)
        self.slope, self.align_corners = cell.slope, cell.align_corners
        self.gates = Operands(cell.gates, cell.in_channels)
        self.flow_hidden = Operands(cell.flow_hidden, cell.in_channels, cell.channels)
        self.flow = Operands(cell.flow, cell.channels)
        self.project = deepcopy(cell.project)

    def forward(self, x: Tensor, state: Tensor) -> Step:
        """Take one step."""
        h = state
        flows = self.flow(F.leaky_relu(self.flow_hidden(x, h), self.slope)).split(2, dim=1)
        fields = [-flow.unsqueeze(1) for flow in flows]  # (B, 1, 2, H, W) each
        warped = [warp(h, field, align_corners=self.align_corners)[:, 0] for field in fields]
        z_x, r_x, n_x = self.gates(x).chunk(3, dim=1)
        z_h, r_h, n_h = self.project(torch.cat(warped, dim=1)).chunk(3, dim=1)
        z, r = torch.sigmoid(z_x + z_h), torch.sigmoid(r_x + r_h)
        n = F.leaky_relu(n_x + r * n_h, self.slope)
        h = (1 - z) * n + z * h
        return Step(h, h)


#: The plain implementation of each cell that has one.
REFERENCES: dict[str, type[PlainCell]] = {
    "convlstm": PlainConvLSTM,
    "predrnn": PlainPredRNN,
    "mim": PlainMIM,
    "motionrnn": PlainMotionRNN,
    "mklstm": PlainMKLSTM,
    "modernn": PlainMoDeRNN,
    "cmslstm": PlainCMSLSTM,
    "trajgru": PlainTrajGRU,
}


def plain(model: Forecaster) -> Forecaster:
    """Return a copy of a model with plain cells and the same weights.

    Raises:
        ConfigError: If its cell has no plain implementation, or an option that this lacks.
    """
    cell, options = model.config.cell, dict[str, Any](model.config.options)
    if cell not in REFERENCES:
        raise ConfigError(
            f"there is no reference implementation of {cell!r}; expected {', '.join(REFERENCES)}"
        )
    unsupported = [name for name in ("norm", "forget_bias", "published_order") if options.get(name)]
    if unsupported or len(options.get("kernel_sizes") or (3, 5)) != 2:
        name = (unsupported or ["kernel_sizes"])[0]
        raise ConfigError(
            f"the reference implementation of {cell!r} has no option {name!r}; leave it out"
        )
    copy = deepcopy(model)
    copy.network.layers = nn.ModuleList(REFERENCES[cell](layer) for layer in copy.network.layers)
    return copy
