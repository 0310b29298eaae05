"""Which trials a reader wants to see, in which order, and the table that shows them. Pure; no drawing."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields

import pandas as pd

from dashboard import links
from dashboard.shape import ago
from sweep.results.state import FILTERED, Failures, Filters, State
from sweep.store.notes import Note


@dataclass(frozen=True)
class Order:
    """An order of trials: by a column, those without a value last; without a column, as `State.chosen` has them."""

    words: str
    column: str | None = None
    ascending: bool = False


ORDERS = {
    "attention": Order("what needs attention first"),
    "horizontal": Order("horizontal score", "horizontal"),
    "vertical": Order("vertical score", "vertical"),
    "accuracy": Order("accuracy", "val_accuracy"),
    "time": Order("training time", "wall_s"),
    "heartbeat": Order("newest heartbeat", "heartbeat_at"),
    "name": Order("name", "trial_id", ascending=True),
}
_KIND_LENGTH = 120  # characters of a failure's kind that an address holds


@dataclass(frozen=True, kw_only=True)
class View:
    """What a reader has chosen to see; an address holds it.

    `failure` is the beginning of a kind of failures, `sort` one of `ORDERS`.
    """

    filters: Filters = field(default_factory=Filters)
    failure: str = ""
    starred: bool = False
    sort: str = "attention"

    def address(self) -> dict[str, list[str]]:
        """The address's parameters, without those that are as they are by default."""
        chosen = {name: list(getattr(self.filters, name)) for name in FILTERED}
        said = {"search": self.filters.search, "failure": self.failure}
        told = chosen | {name: [text] for name, text in said.items() if text}
        told |= {name: ["1"] for name, on in (("unexpected", self.filters.unexpected), ("starred", self.starred)) if on}
        told |= {"sort": [self.sort]} if self.sort != View.sort else {}
        return {name: values for name, values in told.items() if values}


NAMES = (*(one.name for one in fields(Filters)), "failure", "starred", "sort")
"""The parameters of an address that a view is made of."""


def read_view(values_of: Callable[[str], Sequence[str]]) -> View:
    """The view of an address, whose parameter of a name has these values; an unknown order is the default one."""

    def last(name: str) -> str:
        return next(iter(reversed(values_of(name))), "")

    sort = last("sort")
    return View(
        filters=Filters(
            **{name: tuple(values_of(name)) for name in FILTERED},
            unexpected=_is_on(last("unexpected")),
            search=last("search").strip(),
        ),
        failure=last("failure"),
        starred=_is_on(last("starred")),
        sort=sort if sort in ORDERS else View.sort,
    )


def failure_name(failures: Failures) -> str:
    """What an address calls a kind of failures."""
    return failures.kind[:_KIND_LENGTH]


def shown(seen: State, view: View, notes: Mapping[str, Note]) -> pd.DataFrame:
    """The trials that a view chooses, in its order."""
    found = seen.chosen(view.filters)
    if view.failure:
        alike = [failures for failures in seen.failures if failure_name(failures) == view.failure]
        found = found[found["trial_id"].isin([trial_id for failures in alike for trial_id in failures.trial_ids])]
    if view.starred:
        found = found[found["trial_id"].isin([about for about, note in notes.items() if note.star])]
    order = ORDERS[view.sort]
    if order.column is None:
        return found
    return found.sort_values(order.column, ascending=order.ascending, kind="stable", na_position="last")


def unknown(seen: State, filters: Filters) -> dict[str, list[str]]:
    """For each filter, the values asked for that no trial of the sweep has."""
    missing = {
        name: [value for value in getattr(filters, name) if value not in set(seen.trials[column].dropna())]
        for name, column in FILTERED.items()
    }
    return {name: values for name, values in missing.items() if values}


def trial_link(sweep: str, trial_id: str, view: View | None = None) -> str:
    """The address of a trial's page, relative to that of another page; it keeps the view, for what is next there."""
    return links.to("trial", sweep, trial=trial_id, **(view.address() if view else {}))


def compare_link(sweep: str, trial_ids: Sequence[str]) -> str:
    """The address of the page that compares trials, relative to that of another page."""
    return links.to("compare", sweep, trial=list(trial_ids))


def neighbours(trial_ids: Sequence[str], trial_id: str) -> tuple[str | None, str | None]:
    """The trials before and after one; None at an end, and both where it is not among them."""
    if trial_id not in trial_ids:
        return None, None
    place = trial_ids.index(trial_id)
    return (trial_ids[place - 1] if place else None), (trial_ids[place + 1] if place + 1 < len(trial_ids) else None)


def key_of(trial_ids: Sequence[str]) -> str:
    """A table's key: another one as soon as its rows are other trials, so that a click can't be taken for another's."""
    return "trials " + hashlib.sha256("\n".join(trial_ids).encode(errors="replace")).hexdigest()[:16]


def trial_table(
    trials: pd.DataFrame, now: float, links: Sequence[str], notes: Mapping[str, Note], asked: Collection[str]
) -> pd.DataFrame:
    """Trials for the reader, columns in words; `now` in seconds since 1970, `links` in the order of the trials.

    Columns in which no trial has anything to say are left out. Of `asked` trials, a request has not been answered.
    """
    going = trials["status"].isin(["running", "failed"])
    ids = trials["trial_id"]
    remarks = trials["error"].fillna(trials["reason"]).fillna(trials["analysis_error"])
    columns = {
        "Trial": pd.Series(list(links), index=trials.index, dtype="string"),
        "Status": trials["status"],
        "Remark": remarks,
        "Request": ids.isin(list(asked)).map({True: "requested", False: None}),
        "Note": ids.map(lambda trial_id: _in_short(notes.get(trial_id))),
        "Data set, recipe": trials["title"].where(trials["title"] != ""),
        "Architecture": trials["architecture"],
        "Intervention": trials["intervention"],
        "Seed": trials["seed"],
        "Verdict": trials["verdict"],
        "Expected": trials["expected"],
        "Horizontal": _rounded(trials["horizontal"]),
        "Vertical": _rounded(trials["vertical"]),
        "Accuracy": _rounded(trials["val_accuracy"]),
        "Epochs": trials["epoch"].astype("string") + "/" + trials["epochs"].astype("string"),
        "Attempts": trials["attempts"],
        "Host": trials["host"],
        "Last heartbeat": trials["heartbeat_at"].where(going).map(lambda at: ago(now - at), na_action="ignore"),
    }
    told = {name: values for name, values in columns.items() if name not in _OPTIONAL or values.notna().any()}
    return pd.DataFrame(told).reset_index(drop=True)


_OPTIONAL = ("Remark", "Request", "Note", "Data set, recipe", "Last heartbeat")


def _in_short(note: Note | None) -> str | None:
    return None if note is None else f"{'★' if note.star else ''} {note.text}".strip()


def _rounded(values: pd.Series) -> pd.Series:
    """To two decimals, without a minus sign before zero."""
    return values.astype("Float64").round(2) + 0.0


def _is_on(said: str) -> bool:
    return said.lower() in ("1", "true", "yes")
