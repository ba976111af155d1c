"""Forecasts with a trained checkpoint: `python timellm/forecast.py --help`."""

import os
import sys
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

PROG = "forecast.py"

_WINDOWS_SHOWN = 2
"""Input windows of history that a plot shows."""


def build_parser():  # type: ignore[no-untyped-def]
    """The flags; torch is not loaded for them."""
    from timellm.contract.flags import StrictParser

    parser = StrictParser(prog=PROG, description="Forecasts the steps after the end of a series.", allow_abbrev=False)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="file that a training's last lines name, or its folder, or a search's")
    add("--data_path", metavar="FILE", help="CSV or parquet, wide or long (the data of the training)")
    add("--other_data", action="store_true", help="forecast columns not trained on, scaled by their own history")
    add("--freq", metavar="OFFSET", help="pandas offset between rows (the training's)")
    add("--level", type=int, help="level of the interval, 50 to 99 percent (90)")
    add("--interval", choices=("plain", "scaled", "none"), help="kind of interval (what validation chose)")
    add("--wide", action="store_true", help="a row per date instead of a row per series and date")
    add("--out", metavar="FILE", help="forecasts, .csv or .parquet (forecast.csv beside the checkpoint)")
    add("--plot", metavar="FILE", help="picture, .html or .png (.html beside the forecasts)")
    group = parser.add_argument_group("judging")
    group.add_argument(
        "--backtest", type=_origins, metavar="N|test",
        help="forecast from N rolling origins, or the whole test split, and score",
    )  # fmt: skip
    group.add_argument("--step_size", type=int, metavar="ROWS", help="rows between origins (pred_len)")
    group.add_argument("--season", type=int, metavar="STEPS", help="season of MASE and naive (from the frequency)")
    group.add_argument("--control", metavar="FILE", help="checkpoint trained with --llm_model none, to compare with")
    group = parser.add_argument_group("where it runs")
    group.add_argument("--as_trained", action="store_true", help="the training's own path, batch and threads")
    group.add_argument("--settings", metavar="FILE.json", help="settings of a checkpoint of the published code")
    group.add_argument("--llm_path", metavar="DIR", help="transformers folder of the language model")
    group.add_argument("--device", help="auto, cpu, cuda or cuda:N (as trained)")
    group.add_argument("--num_threads", type=int, help="CPU threads (all cores)")
    return parser


def _origins(text: str) -> int | str:
    """A number of origins, or `test`."""
    import argparse

    from timellm.contract.words import shortened

    if text == "test":
        return text
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, or test, got {shortened(text)!r}")
    return int(text)


def main() -> int:
    """Parse the flags, forecast, and name what was written on the last lines."""
    from timellm.machine.launcher import check_alone

    arguments = build_parser().parse_args()
    check_alone(os.environ, "A forecast", "Start it with python timellm/forecast.py.")
    out, plot = _places(arguments)

    import torch

    from timellm.forecasting.forecaster import Forecaster
    from timellm.machine.cores import usable_cores

    torch.set_num_threads(arguments.num_threads or usable_cores())
    forecaster = Forecaster.load(
        arguments.checkpoint,
        settings=arguments.settings,
        as_trained=arguments.as_trained,
        device=arguments.device,
        llm_path=arguments.llm_path,
    )
    if arguments.backtest is None:
        _forecast(arguments, forecaster, out, plot)
    else:
        _backtest(arguments, forecaster, out, plot)
    return 0


def _places(arguments) -> tuple[Path, Path]:  # type: ignore[no-untyped-def]
    """Where table and picture go, checked before anything is computed."""
    from timellm.contract.declarations import MOST, count_problems
    from timellm.contract.errors import InputError
    from timellm.forecasting.output import check_table_name
    from timellm.forecasting.place import checkpoint_file
    from timellm.forecasting.plot import check_plot_name
    from timellm.machine.cores import MOST_THREADS

    name = "forecast.csv" if arguments.backtest is None else "backtest.csv"
    out = Path(arguments.out) if arguments.out else checkpoint_file(Path(arguments.checkpoint)).parent / name
    plot = Path(arguments.plot) if arguments.plot else out.with_suffix(".html")
    check_table_name(out)
    check_plot_name(plot)
    ranges = {"season": (1, MOST), "step_size": (1, MOST), "num_threads": (1, MOST_THREADS)}
    if problems := count_problems(vars(arguments), ranges):
        raise InputError(problems)
    if arguments.as_trained and arguments.num_threads is not None:
        raise InputError("as_trained takes the training's own threads. Drop --as_trained or --num_threads.")
    if arguments.backtest is not None and arguments.wide:
        raise InputError("wide belongs to a forecast; a backtest has a row per origin. Drop --wide or --backtest.")
    if arguments.backtest is None:
        given = [name for name in ("step_size", "control") if getattr(arguments, name) is not None]
        if given:
            raise InputError(f"{', '.join(given)} belong to a backtest. Add --backtest N.")
    return out, plot


def _data(arguments):  # type: ignore[no-untyped-def]
    return {"data": arguments.data_path, "other_data": arguments.other_data, "freq": arguments.freq}


def _forecast(arguments, forecaster, out: Path, plot: Path) -> None:  # type: ignore[no-untyped-def]
    from timellm.data.dates import season_of
    from timellm.forecasting.forecaster import widened
    from timellm.forecasting.output import facts_beside, write_table
    from timellm.forecasting.plot import draw_forecast, shown_forecast

    wanted = {"level": arguments.level, "interval": arguments.interval}
    panel, frequency = forecaster.history(**_data(arguments))
    frame = forecaster.forecast_panel(panel, frequency, other_data=arguments.other_data, **wanted)
    notes = frame.attrs["notes"]
    season = arguments.season or season_of(frequency)
    shown = shown_forecast(panel, frame, season, _WINDOWS_SHOWN * forecaster.config.seq_len)
    title = f"{panel.source}: the next {forecaster.config.pred_len} steps after {panel.dates[-1]}"
    draw_forecast(plot, shown, title, notes)
    table = widened(frame) if arguments.wide else frame
    write_table(out, table, tuple(notes))
    beside = facts_beside(out, {**forecaster.description(), **wanted, "data": panel.source, "notes": notes})
    print("\n".join([*notes, f"notes: {beside}", f"plot: {plot}", f"forecast: {out}"]))


def _backtest(arguments, forecaster, out: Path, plot: Path) -> None:  # type: ignore[no-untyped-def]
    from timellm.forecasting.output import facts_beside, write_table
    from timellm.forecasting.plot import draw_backtest

    wanted = {"level": arguments.level, "interval": arguments.interval}
    found = forecaster.backtest(
        origins=arguments.backtest,
        step_size=arguments.step_size,
        season=arguments.season,
        control=arguments.control,
        out=out,
        **_data(arguments),
        **wanted,
    )
    scores = out.with_name(f"{out.stem}_scores{out.suffix}")
    write_table(scores, found.scores, found.notes)
    draw_backtest(plot, found, f"Backtest of {found.origins} origins: {Path(arguments.checkpoint).name}")
    notes = list(found.notes)
    if arguments.control is None:
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
