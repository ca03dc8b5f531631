"""Drawing the samples of an evaluation: parts shared by processes, shown, waited for, and looked at early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from scorefield import _codec
from scorefield._files import write_json
from scorefield.cli.console.progress import sampling_display
from scorefield.evaluation import Given, Measures, OfModel, SampleStream, others, ranges, summary
from scorefield.metrics import FrechetDistance, MetricResult, SampleSource
from scorefield.metrics.by_name import title
from scorefield.models.run_folder import environment
from scorefield.models.sample_folder import source_of
from scorefield.training import distributed


def drawn(stream: SampleStream, n: int, what: str, early: Early | None = None) -> None:
    """Make this process's parts, show how far they are, and wait for those of the others."""
    rank, world = distributed.start()
    for line in others(stream.samples.folder.parent, stream.samples) if rank == 0 else ():
        print(line)
    mine = sum(count for k, (_, count) in enumerate(ranges(n, stream.size)) if k % world == rank)
    with sampling_display(mine, what) as display:
        if isinstance(stream.draws, OfModel):
            stream.draws.callbacks = (display.within,)

        def after(done: int, total: int) -> None:
            display.finished(0, done)
            if early is not None:
                early.look()

        stream.run(n, rank=rank, world=world, after=after)
    try:
        distributed.all_sum(torch.zeros(1))
    except RuntimeError as error:  # of gloo, where a process is gone
        raise ValueError(
            f"another process stopped before its part was done ({str(error).splitlines()[0]}); what is finished is in"
            f" {stream.samples.folder}, and the same command goes on from there"
        ) from error


def source_of_draws(draws: Given | OfModel, stream: SampleStream, n: int) -> SampleSource | None:
    """How the samples were made, with what they cost; None where they were not drawn here."""
    if not isinstance(draws, OfModel):
        return None
    nfe, status = (stream.column(key, n) for key in ("nfe", "status"))
    return source_of(draws.model, draws.as_drawn(nfe, status))


class Early:
    """Every metric of the first samples, once they are there: whether the rest is worth it.

    Args:
        measures: The metrics.
        stream: The samples.
        n: Number of samples in all.
        count: After how many; 0 for never.
        draws: The source of the samples.
        source: Provenance of the samples, where they are not drawn here.
        out: Folder of early.json.
    """

    def __init__(
        self,
        measures: Measures,
        stream: SampleStream,
        n: int,
        count: int,
        draws: Given | OfModel,
        source: SampleSource | None,
        out: Path,
    ):
        whole = -(-count // stream.size) * stream.size  # parts are whole
        self.record: dict[str, Any] = {}
        self._due = whole if 0 < whole < n else None
        self._measures, self._stream, self._n, self._draws, self._source = measures, stream, n, draws, source
        self._out = out

    def look(self) -> None:
        """Measure, if that is due and the parts of all processes are there."""
        count, stream = self._due, self._stream
        if count is None or not stream.whole(count):
            return
        self._due = None
        source = source_of_draws(self._draws, stream, count) or self._source
        results = self._measures.measure(lambda: stream.parts(count), source)
        for line in summary(results, f"first {count:,} samples"):
            print(line)
        self.record = {"early": [_codec.encode(r) for r in results]}
        distance = next((r for r in results if r.receipt.metric == FrechetDistance.name), None)
        if distance is not None:
            self.record["early outlook"] = self._outlook(distance, count)
        write_json(self._out / "early.json", {**self.record, "environment": environment()})
        print(
            f"{self._n - count:,} samples to come; Ctrl-C stops, and {self._out / 'early.json'} keeps these", flush=True
        )

    def _outlook(self, distance: MetricResult, count: int) -> dict[str, Any]:
        stream = self._stream
        outlook = self._measures.outlook(lambda: stream.parts(count), distance, self._n)
        low_high = outlook["interval"]
        interval = "" if low_high is None else f" [{low_high[0]:.4g}, {low_high[1]:.4g}]"
        doubt = "" if outlook["status"] == "ok" else "; half of the samples are fewer than the features: a guess"
        print(
            f"{title(distance)} will be about {outlook['number']:.4g}{interval} at N = {self._n:,}, and"
            f" {outlook['as N grows']:.4g} as N grows{doubt}"
        )
        return outlook
