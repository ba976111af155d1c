"""The end of a search: recommendations, report, and a summary that fits one screen."""

import shlex

from results.analysis.evidence import gather
from results.analysis.picks import Pick, Recommendation
from results.analysis.table import rows_of
from results.analysis.wording import multiple
from results.document.page import write_report
from search.screen.terminal import Terminal
from timellm.contract.layout import RunFolder


def finish(folder: RunFolder, terminal: Terminal) -> bool:
    """Write recommendations and report, and print the result.

    Args:
        folder: The run folder, with its table and manifest.
        terminal: Where to print.

    Returns:
        Whether there is a usable result: a complete trial.

    Raises:
        OSError: If the disk refuses.
    """
    evidence = gather(folder)
    recommendation = evidence.recommendation
    write_report(evidence)
    if not recommendation.picks:
        terminal.say(f"No trial was completed, so nothing can be recommended. The reasons are in {folder.trials_csv}.")
        return False
    terminal.summary(
        "Pareto front: no other trial is both faster and more accurate",
        rows_of(evidence.front),
        _sentences(recommendation, len(evidence.trials), folder),
    )
    return True


def _sentences(recommendation: Recommendation, trials: int, folder: RunFolder) -> list[str]:
    """The picks, what to keep in mind, and where everything is."""
    lines = [""]
    name = recommendation.reference_name
    if not recommendation.beats_in_score:
        lines.append(f"Nothing beats {name} in the joint score.")
    for pick in recommendation.picks:
        note = " (preliminary)" if pick.is_preliminary else ""
        text = f"{name} itself" if pick.is_reference else f"{multiple(pick.speedup)}, {_error_words(pick)}"
        lines.append(f"{pick.title}: {pick.trial_id}, {text}{note}")
    lines += [f"Note: {caveat}" for caveat in recommendation.caveats]
    lines += ["", f"{trials} trials: {folder.trials_csv}", f"Report: {folder.report}"]
    return [*lines, f"Train it: bash {shlex.quote(str(folder.recommended_command))}"]


def _error_words(pick: Pick) -> str:
    return pick.error_words if pick.has_same_numbers else f"validation MSE {pick.error_words}"
