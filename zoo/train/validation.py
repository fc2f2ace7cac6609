"""Validation during training: metrics and pictures of forecasts of unseen sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from zoo.atomic import atomic_path, make_folder
from zoo.config import Data
from zoo.data import open_dataset
from zoo.forecast import Forecaster
from zoo.inspect.pictures import comparison_strip
from zoo.metrics import FrameMetrics
from zoo.scores import create_metric
from zoo.scores.ensemble import EnsembleMetrics
from zoo.train.data import known_of
from zoo.train.recipe import VALIDATED, Recipe
from zoo.train.sampling import Share

__all__ = ["Validation"]

MEMBERS = 4  # of an ensemble


class Validation:
    """The sequences that a run is validated on, and the metrics of a model's forecasts of them.

    Args:
        recipe: its tables `data` and `evaluation` choose the sequences.
        accelerator: the processes that share the sequences.
        root: the folder of the data sets.

    Raises:
        ConfigError: if the metric does not exist.
        DataError: if the data are missing.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator, root: Path | None) -> None:
        self.accelerator = accelerator
        self.input_frames, self.horizon = recipe.data.input_frames, recipe.data.horizon
        settings = recipe.evaluation
        options: dict[str, Any] = {**recipe.data.options, **settings.options}
        dataset: Any = open_dataset(
            recipe.data.name,
            settings.split,
            root=root,
            frames=self.input_frames + self.horizon,
            **options,
        )
        self.dataset = Subset(dataset, range(min(settings.sequences, len(dataset))))
        self.batch_size = settings.batch_size
        name = settings.metric
        self.further = {} if name in (*VALIDATED, "crps") else {name: create_metric(name)}
        self.higher_is_better = (
            self.further[name].higher_is_better if self.further else VALIDATED.get(name, False)
        )

    def is_better(self, score: float, best: float | None) -> bool:
        """Return whether a score of the recipe's metric is better than the best so far."""
        return best is None or (score > best if self.higher_is_better else score < best)

    def measure(self, model: Forecaster) -> dict[str, float | None]:
        """Compute the metrics of the forecast frames; each process forecasts its share.

        Those of an ensemble are the metrics of its mean, and the CRPS.
        """
        metrics, ensemble = FrameMetrics(metrics=self.further), EnsembleMetrics(Data())
        model.eval()
        first = 0
        for sequences in DataLoader(self.dataset, self.batch_size):
            share = Share.of(
                len(sequences), self.accelerator.process_index, self.accelerator.num_processes
            )
            chosen = [first + row for row in share.rows]
            forecast = self._forecast(model, sequences[share.rows], chosen)
            first += len(sequences)
            gathered = self.accelerator.gather(forecast.contiguous())[: len(sequences)]
            members = rearrange(gathered.cpu(), "b m ... -> m b ...")
            truth = sequences[:, self.input_frames :, : members.shape[3]].float()
            metrics.update(members[0] if len(members) == 1 else members.mean(dim=0), truth)
            if model.config.noise:
                ensemble.update(members.clamp(0, 1), truth)
        values = metrics.compute()
        scores = {name: values[name] for name in (*VALIDATED, *self.further)}
        return scores | ({"crps": ensemble.scores()["crps"]} if model.config.noise else {})

    def draw(self, model: Forecaster, path: Path) -> None:
        """Save a picture of the first sequence: input, truth and forecast of the first member."""
        model.eval()
        sequence = self.dataset[0]
        forecast = self._forecast(model, sequence[None], [0])[0, 0].cpu().clamp(0, 1)
        channels = slice(forecast.shape[1] if forecast.shape[1] in (1, 3) else 1)
        parts = sequence[: self.input_frames], sequence[self.input_frames :], forecast
        past, truth, future = (frames[:, channels].nan_to_num().numpy() for frames in parts)
        make_folder(path.parent)
        with atomic_path(path) as temporary:
            comparison_strip(past, truth, future).save(temporary)

    def _forecast(self, model: Forecaster, sequences: Tensor, indices: list[int]) -> Tensor:
        """Forecast the last frames of sequences (B, T, C, H, W).

        Returns:
            (B, members, horizon, C, H, W).
        """
        device = self.accelerator.device
        known = known_of(model.config, self.dataset.dataset, indices, sequences).to(device)
        past = sequences[:, : self.input_frames].nan_to_num().to(device)
        members = MEMBERS if model.config.noise else 1
        with torch.no_grad():
            forecasts = [
                model.sample(past, self.horizon, known, member=member, numbers=indices)
                for member in range(members)
            ]
        return torch.stack(forecasts, dim=1)[:, :, -self.horizon :].float()
