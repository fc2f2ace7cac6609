"""Published costs and scores of the models, as printed.

Source: the MS-LSTM paper (arXiv 2304.07724, the version with eight baselines), tables 1 to 8.
Six layers, hidden 32, kernels of 3 (3 and 5 in MK-LSTM), batch 1 per GPU. Its "FLOPs" are the
multiply-accumulates of the convolutions, without bias, in one forward pass over all steps.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DIFFERENCES", "TABLES", "Published", "Table", "Task"]


@dataclass(frozen=True)
class Task:
    """A forecast of `horizon` frames of `size` (height, width) from `input_frames`."""

    size: tuple[int, int]
    input_frames: int
    horizon: int

    @property
    def steps(self) -> int:
        """Number of steps of the network; the last input frame gives the first forecast."""
        return self.input_frames + self.horizon - 1


@dataclass(frozen=True)
class Published:
    """A row of a published table.

    Attributes:
        name: Name of the model in the paper.
        architecture: Its name here.
        parameters: In millions.
        memory: In GB, as allocated on an A100 in training.
        macs: In 10⁹, from the column "FLOPs".
        hours: Training time on four A100s.
        scores: SSIM, MSE and MAE averaged over all one-step predictions; for TaxiBJ the MSE by
            frame; for radar CSI and HSS at 0.5, 2 and 5 mm/h.
        why: What this row counts or omits, if it differs from the paper's own network.
    """

    name: str
    architecture: str
    parameters: float
    memory: float
    macs: float
    hours: float
    scores: dict[str, tuple[float, ...]]
    why: str


@dataclass(frozen=True)
class Table:
    """A published table, for one data set."""

    title: str
    task: Task
    rows: tuple[Published, ...]


def _rows(text: str, **why: str) -> tuple[Published, ...]:
    """Parse lines of name, architecture, parameters, memory, macs, hours and scores.

    Args:
        text: The lines.
        why: Reasons by architecture, with _ instead of -.
    """
    rows = []
    for line in text.strip().splitlines():
        name, architecture, *words = line.split()
        scores = {}
        for score in words[4:]:
            metric, values = score.split("=")
            scores[metric] = tuple(map(float, values.split("/")))
        parameters, memory, macs, hours = map(float, words[:4])
        reason = why.get(architecture.replace("-", "_"), "")
        rows.append(Published(name, architecture, parameters, memory, macs, hours, scores, reason))
    return tuple(rows)


_TRANSPOSED = "a transposed convolution is counted 4 times in the published figure"
_UPSAMPLING = "the published figure counts 11 per element of a bilinear upsampling"
_SOFTMAX = "the published figure counts the softmax of the attention, not its products"
_SIZE = "at 212×212 this network costs 260.6 G: the published row was probably run at that size"

TABLES = {
    "mmnist": Table(
        "Moving MNIST",
        Task((64, 64), 10, 10),
        _rows(
            """
            ConvLSTM    convlstm     0.4   3.6   34.4   1.9  ssim=0.810 mse=90.36 mae=142.5
            PredRNN     predrnn      0.9   6.3   69.8   4.9  ssim=0.845 mse=66.17 mae=118.0
            PredRNN++   predrnnpp    1.4   8.8   94.7   4.5  ssim=0.846 mse=65.63 mae=119.0
            PredRNN-V2  predrnnv2    0.9   7.3   70.8   7.9  ssim=0.855 mse=61.57 mae=112.9
            MIM         mim          1.8  11.0  143.0   9.5  ssim=0.855 mse=63.76 mae=113.4
            MotionRNN   motionrnn    1.9  11.8  146.2  32.7  ssim=0.862 mse=59.62 mae=108.9
            SMS-LSTM    ms-convlstm  0.4   2.7   15.1   2.0  mse=63.90
            TMS-LSTM    mklstm       1.9   9.5  147.3   5.0  mse=67.70
            MS-LSTM     ms-mklstm    1.9   5.2   64.5   5.0  ssim=0.879 mse=52.63 mae=97.9
            """,
            motionrnn=_TRANSPOSED,
            ms_mklstm=_UPSAMPLING,
        ),
    ),
    "taxibj": Table(
        "TaxiBJ",
        Task((32, 32), 4, 4),
        _rows(
            """
            ConvLSTM    convlstm     0.4   2.1    3.2   0.8  mse=0.199/0.268/0.315/0.356
            TrajGRU     trajgru      0.5   2.3    3.6   8.1  mse=0.193/0.264/0.305/0.352
            PredRNN     predrnn      0.9   2.4    6.4   1.9  mse=0.170/0.222/0.257/0.287
            PredRNN++   predrnnpp    1.4   2.7    8.7   1.8  mse=0.162/0.200/0.234/0.268
            MIM         mim          1.8   2.8   13.2   3.7  mse=0.164/0.208/0.251/0.288
            MotionRNN   motionrnn    1.9   2.9   13.5  11.8  mse=0.147/0.188/0.228/0.263
            CMS-LSTM    cmslstm      1.1   5.6   11.5   9.4  mse=0.169/0.210/0.249/0.289
            MS-LSTM     ms-mklstm    1.9   2.3    5.9   2.0  mse=0.141/0.173/0.199/0.230
            """,
            motionrnn=_TRANSPOSED,
            cmslstm=_SOFTMAX,
        ),
    ),
    "kth": Table(
        "KTH",
        Task((128, 128), 10, 10),
        _rows(
            """
            ConvLSTM    convlstm     0.4   8.3  137.7   1.0
            TrajGRU     trajgru      0.5  18.1  154.2   9.4
            PredRNN     predrnn      0.9  18.4  279.3   2.2
            PredRNN++   predrnnpp    1.4  27.7  378.7   2.8
            MIM         mim          1.8  35.7  571.9   4.3
            MotionRNN   motionrnn    1.9  38.7  584.8  12.1
            MS-LSTM     ms-mklstm    1.9  14.5  257.9   2.1
            """,
            motionrnn=_TRANSPOSED,
            ms_mklstm=_UPSAMPLING,
        ),
    ),
    "dwd": Table(
        "Germany (DWD radar)",
        Task((180, 180), 4, 4),
        _rows(
            """
            ConvLSTM    convlstm     0.4   6.8  100.3   0.8  csi=.341/.199/.079 hss=.490/.315/.138
            TrajGRU     trajgru      0.5  14.0  112.4   7.7  csi=.378/.210/.082 hss=.531/.331/.144
            PredRNN     predrnn      0.9  14.3  203.5   1.9  csi=.380/.231/.092 hss=.533/.358/.158
            PredRNN++   predrnnpp    1.4  21.1  275.9   2.3  csi=.382/.234/.091 hss=.536/.364/.158
            MIM         mim          1.8  27.1  416.7   3.8  csi=.380/.225/.087 hss=.534/.352/.153
            MotionRNN   motionrnn    1.9  29.4  426.1  10.4  csi=.387/.229/.085 hss=.541/.357/.149
            PrecipLSTM  preciplstm   1.8  38.3  398.5  14.8  csi=.392/.234/.088 hss=.556/.364/.152
            MS-LSTM     ms-mklstm    1.9  14.8  260.6   1.8  csi=.405/.243/.096 hss=.562/.378/.164
            """,
            motionrnn=_TRANSPOSED,
            ms_mklstm=_SIZE,
        ),
    ),
}

#: What the published code of a cell holds or computes and the zoo's does not, although their
#: outputs are the same; in any topology.
DIFFERENCES = {
    "predrnnpp": "the published network has a gradient highway in every layer but uses only one",
    "predrnnv2": "the published network applies the adapter of its auxiliary loss in forecasts, "
    "not only in training",
    "mim": "the published network computes the N and S memories of layer 0 and the forget gates "
    "above it but does not use them",
    "motionrnn": "the published network computes the N and S memories of layer 0, the forget "
    "gates above it and the last layer's MotionGRU but does not use them",
    "modernn": "the published network applies three kernels to the same input as three "
    "convolutions, not as their sum, one of 7×7",
}
