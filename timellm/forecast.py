"""Forecasts with a trained checkpoint: `python timellm/forecast.py --help`."""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from timellm.contract.declarations import AtLeast, ReadBy, Shown, Switch
from timellm.contract.errors import InputError
from timellm.contract.flags import CommandOptions, StrictParser, add_flags
from timellm.contract.words import shortened
from timellm.machine.cores import Threads

if TYPE_CHECKING:
    from timellm.forecasting.forecaster import Forecaster

PROG = "forecast.py"

_WINDOWS_SHOWN = 2
"""Input windows of history that a plot shows."""


def _origins(text: str) -> str:
    """A number of origins, or `test`."""
    if text != "test" and (not text.isdecimal() or len(text) > 9 or int(text) < 1):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, or test, got {shortened(text)!r}")
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked(CommandOptions):
    """What a forecast is asked, beside its checkpoint; None leaves it to the training, or to what the help says."""

    # what is forecast
    data_path: Annotated[str | None, Shown("FILE", default="the data of the training")] = None
    """CSV or parquet, wide or long."""
    other_data: Annotated[bool, Switch()] = False
    """Forecast columns not trained on, scaled by their own history."""
    freq: Annotated[str | None, Shown("OFFSET", default="the training's")] = None
    """Pandas offset between rows."""
    level: Annotated[int | None, Shown("PERCENT", default="90")] = None
    """Level of the interval, 50 to 99 percent."""
    interval: Annotated[Literal["plain", "scaled", "none"] | None, Shown(default="what validation chose")] = None
    """Kind of interval."""
    wide: Annotated[bool, Switch()] = False
    """A row per date instead of a row per series and date."""
    out: Annotated[str | None, Shown("FILE", default="forecast.csv beside the checkpoint")] = None
    """Forecasts, .csv or .parquet."""
    plot: Annotated[str | None, Shown("FILE", default=".html beside the forecasts")] = None
    """Picture, .html or .png."""

    # judging
    backtest: Annotated[str | None, ReadBy(_origins), Shown("N|test")] = None
    """Forecast from N rolling origins, or the whole test split, and score."""
    step_size: Annotated[int | None, AtLeast(1), Shown("ROWS", default="pred_len")] = None
    """Rows between origins."""
    season: Annotated[int | None, AtLeast(1), Shown("STEPS", default="from the frequency")] = None
    """Season of MASE and naive."""
    control: Annotated[str | None, Shown("FILE")] = None
    """Checkpoint trained with --llm_model none, to compare with."""

    # where it runs
    as_trained: Annotated[bool, Switch()] = False
    """The training's own path, batch and threads."""
    settings: Annotated[str | None, Shown("FILE.json")] = None
    """Settings of a checkpoint of the published code."""
    llm_path: Annotated[str | None, Shown("DIR")] = None
    """Transformers folder of the language model."""
    device: Annotated[str | None, Shown(default="as trained")] = None
    """auto, cpu, cuda or cuda:N."""
    num_threads: Threads = None
    """CPU threads."""

    @property
    def origins(self) -> int | str | None:
        """The backtest's number of origins, or `test`; None for a forecast."""
        return int(self.backtest) if self.backtest is not None and self.backtest.isdecimal() else self.backtest


def build_parser() -> argparse.ArgumentParser:
    """The flags; torch is not loaded for them."""
    parser = StrictParser(prog=PROG, description="Forecasts the steps after the end of a series.", allow_abbrev=False)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="file that a training's last lines name, or its folder, or a search's"
    )
    add_flags(parser, Asked)
    return parser


def main() -> int:
    """Parse the flags, forecast, and name what was written on the last lines."""
    from timellm.machine.launcher import check_alone

    arguments = build_parser().parse_args()
    checkpoint, asked = arguments.checkpoint, Asked.of(vars(arguments))
    check_alone(os.environ, "A forecast", "Start it with python timellm/forecast.py.")
    out, plot = _places(checkpoint, asked)

    import torch

    from timellm.forecasting.forecaster import Forecaster
    from timellm.machine.cores import usable_cores

    torch.set_num_threads(asked.num_threads or usable_cores())
    forecaster = Forecaster.load(
        checkpoint,
        settings=asked.settings,
        as_trained=asked.as_trained,
        device=asked.device,
        llm_path=asked.llm_path,
    )
    if (origins := asked.origins) is None:
        _forecast(asked, forecaster, out, plot)
    else:
        _backtest(asked, origins, checkpoint, forecaster, out, plot)
    return 0


def _places(checkpoint: str, asked: Asked) -> tuple[Path, Path]:
    """Where table and picture go, checked before anything is computed."""
    from timellm.forecasting.output import check_table_name
    from timellm.forecasting.place import checkpoint_file
    from timellm.forecasting.plot import check_plot_name

    name = "forecast.csv" if asked.backtest is None else "backtest.csv"
    out = Path(asked.out) if asked.out else checkpoint_file(Path(checkpoint)).parent / name
    plot = Path(asked.plot) if asked.plot else out.with_suffix(".html")
    check_table_name(out)
    check_plot_name(plot)
    if asked.as_trained and asked.num_threads is not None:
        raise InputError("as_trained takes the training's own threads. Drop --as_trained or --num_threads.")
    if asked.backtest is not None and asked.wide:
        raise InputError("wide belongs to a forecast; a backtest has a row per origin. Drop --wide or --backtest.")
    if asked.backtest is None:
        given = [name for name in ("step_size", "control") if getattr(asked, name) is not None]
        if given:
            raise InputError(f"{', '.join(given)} belong to a backtest. Add --backtest N.")
    return out, plot


def _data(asked: Asked) -> dict[str, Any]:
    return {"data": asked.data_path, "other_data": asked.other_data, "freq": asked.freq}


def _forecast(asked: Asked, forecaster: "Forecaster", out: Path, plot: Path) -> None:
    from timellm.data.dates import season_of
    from timellm.forecasting.forecaster import widened
    from timellm.forecasting.output import facts_beside, write_table
    from timellm.forecasting.plot import draw_forecast, shown_forecast

    wanted: dict[str, Any] = {"level": asked.level, "interval": asked.interval}
    panel, frequency = forecaster.history(**_data(asked))
    frame = forecaster.forecast_panel(panel, frequency, other_data=asked.other_data, **wanted)
    notes = frame.attrs["notes"]
    season = asked.season or season_of(frequency)
    shown = shown_forecast(panel, frame, season, _WINDOWS_SHOWN * forecaster.config.seq_len)
    title = f"{panel.source}: the next {forecaster.config.pred_len} steps after {panel.dates[-1]}"
    draw_forecast(plot, shown, title, notes)
    table = widened(frame) if asked.wide else frame
    write_table(out, table, tuple(notes))
    beside = facts_beside(out, {**forecaster.description(), **wanted, "data": panel.source, "notes": notes})
    print("\n".join([*notes, f"notes: {beside}", f"plot: {plot}", f"forecast: {out}"]))


def _backtest(
    asked: Asked, origins: int | str, checkpoint: str, forecaster: "Forecaster", out: Path, plot: Path
) -> None:
    from timellm.forecasting.output import facts_beside, write_table
    from timellm.forecasting.plot import draw_backtest

    wanted: dict[str, Any] = {"level": asked.level, "interval": asked.interval}
    found = forecaster.backtest(
        origins=origins,
        step_size=asked.step_size,
        season=asked.season,
        control=asked.control,
        out=out,
        **_data(asked),
        **wanted,
    )
    scores = out.with_name(f"{out.stem}_scores{out.suffix}")
    write_table(scores, found.scores, found.notes)
    draw_backtest(plot, found, f"Backtest of {found.origins} origins: {Path(checkpoint).name}")
    notes = list(found.notes)
    if asked.control is None:
        notes.append("Without --control nothing says what the language model adds: train one with --llm_model none.")
    beside = facts_beside(out, {**forecaster.description(), **wanted, "season": found.season, "notes": notes})
    print(found.summary().to_string(index=False, float_format="{:.4f}".format))
    print("\n".join([*notes, f"notes: {beside}", f"plot: {plot}", f"scores: {scores}", f"forecasts: {out}"]))


def command() -> NoReturn:
    """The command `timellm-forecast`."""
    from timellm.arguments import run_command
    from timellm.machine.process import restart_with_environment

    restart_with_environment()
    run_command(main, PROG)


if __name__ == "__main__":
    command()
